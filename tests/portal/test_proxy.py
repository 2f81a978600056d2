"""The service behind a real nginx with the configuration that is shipped: TLS ends there, and the API is a process of
its own that trusts nginx's address and no other.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from bench.parts import free_port
from core.settings import Settings
from core.storage import Store
from tests.api.ended_job import succeeded_job
from tests.api.uploading import announced, send_rest, start
from tests.conftest import bearer, settings_for
from tests.databases import fresh_database
from tests.model_folders import write_llama
from tests.portal.running_job import Running
from tests.webhooks.receiver import Trust
from tests.webhooks.test_address_policy import make_trust
from tests.worker.conftest import eventually
from worker.embedded.serve import part_commands, part_environment
from worker.processes import ChildProcess, spawn

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx" / "secateur.conf"
NGINX, CLIENT, STRANGER = "127.0.0.1", "127.0.0.5", "127.0.0.9"
"""Addresses from which nginx asks the API, a client asks nginx, and a client asks the API past nginx."""
FORGED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
PART_BYTES = 16 * 2**10


@dataclass(frozen=True)
class Outside:
    """Addresses of the service: its users', and that of whoever reaches past nginx; `key` is an admin's."""

    port: int
    trust: Trust
    past_nginx: str
    key: str

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, address: str = CLIENT, **headers: str) -> httpx.Client:
        """A client at an address, that trusts nginx's certificate."""
        transport = httpx.HTTPTransport(verify=self.trust.client, local_address=address)
        return httpx.Client(base_url=self.url, headers=bearer(self.key) | headers, transport=transport, timeout=60)


@contextmanager
def running(command: list[str], name: str, log: Path, environment: dict[str, str]) -> Iterator[ChildProcess]:
    with log.open("wb") as said:
        child = spawn(command, name=name, stdout=said, stderr=subprocess.STDOUT, environment=environment)
    try:
        yield child
    finally:
        child.end(grace_seconds=10)


def nginx_configuration(folder: Path, *, api: int, port: int, certificate: Path) -> Path:
    """The shipped file with other ports and a certificate that has its key with it, and what Debian's own nginx.conf
    puts around it.
    """
    changes = {
        "127.0.0.1:8000": f"127.0.0.1:{api}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "    listen [::]:443 ssl;\n": "",
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "    listen [::]:80;\n": "",
        "/etc/ssl/secateur/fullchain.pem": str(certificate),
        "/etc/ssl/secateur/privkey.pem": str(certificate),
        "    proxy_pass http://secateur;": f"    proxy_pass http://secateur; proxy_bind {NGINX};",
    }
    site = SHIPPED.read_text()
    for shipped, ours in changes.items():
        assert site.count(shipped) == 1, shipped
        site = site.replace(shipped, ours)
    (folder / "site.conf").write_text(site)
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    main = folder / "nginx.conf"
    main.write_text(
        f"{user} worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn; daemon off;\n"
        f"events {{}}\nhttp {{ gzip on; {temporary} include {folder}/site.conf; }}\n"
    )
    return main


@pytest.fixture(scope="module")
def settings(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Yield the settings of the one service of all tests here."""
    with fresh_database(postgres_url) as url:
        yield settings_for(url, tmp_path_factory.mktemp("proxied") / "home")


@pytest.fixture(scope="module")
def place(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """The service of all tests, of which nobody has a key yet."""
    nginx = shutil.which("nginx") or next((str(p) for p in [Path("/usr/sbin/nginx")] if p.exists()), None)
    if nginx is None:
        pytest.skip("nginx is not installed (apt-get install nginx)")
    tmp_path = tmp_path_factory.mktemp("nginx")
    trust = make_trust(tmp_path, "localhost")
    api, port = free_port(), free_port()
    main = nginx_configuration(tmp_path, api=api, port=port, certificate=tmp_path / "certificate.pem")
    settings.home.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        **part_environment(settings),
        "SECATEUR_SECRET_KEY": settings.secret_key or "",
        "SECATEUR_TRUSTED_PROXIES": f"{NGINX}/32",
        "SECATEUR_UPLOAD_PART_BYTES": str(PART_BYTES),
        "FORWARDED_ALLOW_IPS": "*",  # uvicorn's own trust is not asked
    }
    command = part_commands("127.0.0.1", api, settings)["api"]
    outside = Outside(port, trust, f"http://127.0.0.1:{api}", key="nobody's")
    with (
        running(command, "api", settings.home / "api.log", environment),
        running([nginx, "-p", str(tmp_path), "-c", str(main)], "nginx", tmp_path / "nginx.log", {}),
    ):
        eventually(lambda: answers(outside), 180)
        yield outside


@pytest.fixture
def outside(place: Outside, admin_key: str) -> Outside:
    return replace(place, key=admin_key)


def answers(place: Outside) -> bool:
    try:
        with place.client() as client:
            return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def test_streams_uploads_addresses_and_entity_tags_come_through(
    outside: Outside,
    model: str,
    sessions: sessionmaker[Session],
    store: Store,
    tmp_path: Path,
    job_body: dict[str, Any],
) -> None:
    with outside.client() as client:
        finished = succeeded_job(client, sessions, store, tmp_path / "artifact", model=model)
        file = f"/v1/jobs/{finished}/artifacts/model.safetensors"
        tag = client.get(file).raise_for_status().headers["ETag"]
        assert tag == f'"{hashlib.sha256(b"weights").hexdigest()}"'
        assert client.get(file, headers={"If-None-Match": tag}).status_code == 304
        assert client.get(file, headers={"Range": "bytes=2-4"}).content == b"igh"

        assert client.get("/").headers["Location"] == "/portal/"
        assert client.get("/portal/jobs").headers["Location"].startswith("/portal/sign-in")

        running_job = Running(sessions, store, client.post("/v1/jobs", json=job_body).json()["id"]).begin()
        with client.stream(
            "GET", f"/v1/jobs/{running_job.id}/events", headers={"Accept": "text/event-stream"}
        ) as events:
            lines = events.iter_lines()
            for number in range(3):  # each arrives before the next is said: nothing waits in a buffer
                running_job.log(f"line {number}")
                assert any(f"line {number}" in line for line in lines)

        folder = write_llama(tmp_path / "uploaded", hidden=64, intermediate=96)
        upload = start(client, announced(folder))
        assert (folder / "model.safetensors").stat().st_size > 3 * PART_BYTES
        send_rest(client, upload, folder)
        done = client.post(f"/v1/uploads/{upload['id']}/complete")
        assert done.is_success, done.text


@pytest.mark.parametrize(
    "path", ["/metrics", "//metrics", "/%6detrics", "/portal/../metrics", "/metrics/", "/metrics?a"]
)
def test_metrics_are_not_for_the_world(outside: Outside, path: str) -> None:
    assert httpx.get(f"{outside.past_nginx}/metrics").status_code == 200, "the port is unset: the API has them itself"
    with outside.client() as client:
        answer = client.get(httpx.URL(f"{outside.url}/").copy_with(raw_path=path.encode()))
    assert answer.status_code == 404 and "secateur_" not in answer.text


def test_only_nginx_is_believed_and_it_believes_no_client(outside: Outside) -> None:
    def address_of(client: httpx.Client, url: str, **headers: str) -> Any:
        made = client.post(f"{url}/v1/keys", json={"name": "asked"}, headers=FORGED | headers).raise_for_status().json()
        (entry,) = client.get(f"{url}/v1/audit", params={"object_id": made["id"]}).json()["data"]
        return entry["address"]

    with outside.client() as client:
        assert address_of(client, outside.url) == CLIENT
    with outside.client(STRANGER) as past:
        assert address_of(past, outside.past_nginx) == STRANGER
        signed_in = past.post(f"{outside.past_nginx}/portal/sign-in", data={"key": outside.key}, headers=FORGED)
        assert signed_in.status_code == 303 and "Secure" not in signed_in.headers["Set-Cookie"]
    with outside.client() as client:
        for origin, status in (
            (outside.url, 303),
            (outside.url.replace("https", "http"), 403),
            ("https://elsewhere.example", 403),
        ):
            answer = client.post("/portal/sign-in", data={"key": outside.key}, headers={"Origin": origin})
            assert answer.status_code == status, origin
            assert status != 303 or "Secure" in answer.headers["Set-Cookie"]
