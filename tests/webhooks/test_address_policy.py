"""Where calls may go, and that nothing the other side does hurts."""

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.http import outbound
from core.http.address_policy import AddressPolicy, is_global
from core.http.outbound import CallFailed, Limits, post
from secateur_wire.errors import UnsafeAddress
from tests.webhooks.receiver import Receiver, Trust, receiving

LOOPBACK = (ip_network("127.0.0.0/8"),)
CALM = Limits(connect=60, read=60, total=60, body=60)
QUICK = Limits(connect=60, read=0.3, total=0.6, body=0.2)
"""For what gives no answer."""

INSIDE = (
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
    "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "192.88.99.1", "168.63.129.16",
    "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "100::1", "::7f00:1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1", "2001:0:808:808::1",
)  # fmt: skip
OUTSIDE = (
    "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808",
)  # fmt: skip


def resolving(*addresses: str) -> AddressPolicy:
    return AddressPolicy(resolve=lambda name, port: addresses)


def test_what_is_inside_is_refused_however_it_is_written() -> None:
    for address in INSIDE:
        assert not is_global(ip_address(address)), address
        for policy in (resolving(address), resolving("8.8.8.8", address)):  # one bad address is enough
            with pytest.raises(UnsafeAddress, match="not a public address"):
                policy.check_url("https://innocent.example/hook")


def test_what_is_public_is_allowed_over_https_alone() -> None:
    for address in OUTSIDE:
        resolving(address).check_url("https://innocent.example/hook")
        with pytest.raises(UnsafeAddress, match="over https only"):
            resolving(address).check_url("http://innocent.example/hook")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.com", "must begin with https"),
        ("file:///etc/passwd", "must begin with https"),
        ("https://user:password@example.com/", "no user name"),
        ("https://8.8.8.8\\@127.0.0.1/", "backslashes|not a URL|user name"),
        ("https://example.com/#part", "part after #"),
        ("https://example.com/\n", "not a URL|spaces"),
        ("https://example.com:99999/", "port|not a URL"),
        ("https://" + "a" * 3000 + ".example", "at most"),
        ("https://[::1]/", "not a public address"),
        ("https://[::ffff:7f00:1]/", "not a public address"),
        ("https://2130706433/", "not a public address"),
        ("https://0x7f.1/", "not a public address"),
        ("https://localhost/", "not a public address"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, said: str) -> None:
    with pytest.raises(UnsafeAddress, match=said) as refused:
        AddressPolicy().check_url(url)
    assert refused.value.param == "url" and refused.value.message.startswith("url: ")


def test_a_name_that_is_not_there_or_not_resolved_in_time_is_told(receiver: Receiver) -> None:
    def fail(name: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    def wait(name: str, port: int) -> Sequence[str]:
        receiver.go_on.wait(60)
        return ["8.8.8.8"]

    with pytest.raises(UnsafeAddress, match="no address"):
        AddressPolicy(resolve=fail).check_url("https://nowhere.example/")
    with pytest.raises(UnsafeAddress, match="not resolved in time"):
        AddressPolicy(resolve=wait).check_url("https://slow.example/", resolve_seconds=0.1)


def test_a_name_that_changes_its_mind_is_refused_and_resolved_once_a_call(receiver: Receiver) -> None:
    answers = [["8.8.8.8"], ["127.0.0.1"]]
    asked: list[str] = []

    def rebind(name: str, port: int) -> Sequence[str]:
        asked.append(name)
        return answers.pop(0)

    address_policy = AddressPolicy(resolve=rebind)
    url = f"https://rebinding.example:{receiver.server_port}/ok"
    address_policy.check_url(url)
    with pytest.raises(UnsafeAddress, match=r"127\.0\.0\.1"):
        post(url, b"{}", {}, address_policy, CALM)
    assert asked == ["rebinding.example"] * 2 and receiver.connections == 0


def test_the_connection_goes_to_the_address_that_was_checked_and_asks_for_the_name(receiver: Receiver) -> None:
    answers = [["127.0.0.1"], ["8.8.8.8"]]
    address_policy = AddressPolicy(LOOPBACK, lambda name, port: answers.pop(0))
    answer = post(receiver.url(host="hooks.example"), b"{}", {"X-A": "b"}, address_policy, CALM)
    assert answer.status == 200 and answer.body == b"said\0" and len(answers) == 1
    [received] = receiver.received
    assert received.headers["host"] == f"hooks.example:{receiver.server_port}" and received.headers["x-a"] == "b"


def test_tls_asks_for_the_name_and_checks_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = make_trust(tmp_path, "hooks.example")
    address_policy = AddressPolicy(LOOPBACK, lambda name, port: ["127.0.0.1"])
    with receiving(trust) as receiver:
        with pytest.raises(CallFailed, match="certificate"):
            post(f"https://hooks.example:{receiver.server_port}/ok", b"{}", {}, address_policy, CALM)
        monkeypatch.setattr(outbound, "_tls_context", lambda: trust.client)
        assert post(f"https://hooks.example:{receiver.server_port}/ok", b"{}", {}, address_policy, CALM).status == 200
        with pytest.raises(CallFailed, match="certificate"):
            post(f"https://other.example:{receiver.server_port}/ok", b"{}", {}, address_policy, CALM)
    assert trust.asked == ["hooks.example", "hooks.example", "other.example"]


def test_proxies_of_the_environment_are_not_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(receiver.url(), b"{}", {}, AddressPolicy(LOOPBACK), CALM).status == 200


@pytest.mark.parametrize("path", ["/endless", "/drip-body"])
def test_a_body_that_does_not_end_is_cut_off(receiver: Receiver, path: str) -> None:
    short = replace(CALM, body=0.2)
    answer = post(receiver.url(path), b"{}", {}, AddressPolicy(LOOPBACK), short)
    assert answer.status == 200 and len(answer.body) <= short.body_bytes
    assert receiver.sent < 64 * 2**20, "no more than what sockets hold is taken of 10 GB"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/silent", "no answer in time"),
        ("/garbage", "not HTTP"),
        ("/long-head", "not HTTP"),
    ],
)
def test_what_is_no_answer_is_told_in_time(receiver: Receiver, path: str, said: str) -> None:
    with pytest.raises(CallFailed, match=said):
        post(receiver.url(path), b"{}", {}, AddressPolicy(LOOPBACK), QUICK)


def make_trust(folder: Path, name: str) -> Trust:
    """A certificate for a name, and a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    both = folder / "certificate.pem"
    both.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(both)
    return Trust(server, ssl.create_default_context(cafile=str(both)))
