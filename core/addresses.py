"""Calling addresses that users name, without being sent where they should not reach: into this machine or its network.

A URL is checked when it is given, and again at every call: the name is resolved once, every address it has must be
global (or in a network the operator allows), and the connection is made to an address that was checked, so that a name
that changes its mind between the look and the call gains nothing. TLS still asks for the name. Nothing here follows
redirects, asks a proxy, keeps cookies or decompresses.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpcore
import httpx

from core.errors import UnsafeAddress

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a name, as text; raises OSError where it has none."""

LONGEST_URL = 2000
_NAT64 = IPv6Network("64:ff9b::/96")
_REFUSED = tuple(
    ip_network(each)
    for each in (
        "168.63.129.16/32",  # a cloud's own services, at an address that looks public
        "192.88.99.0/24",  # relays of 6to4
        "::/96",  # IPv4 written as IPv6, long deprecated
        "2001::/32",  # Teredo: tunnels to whatever IPv4 address it holds
        "fec0::/10",  # site-local, long deprecated
    )
)


def resolve(name: str, port: int) -> list[str]:
    """By the system's resolver."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


@dataclass(frozen=True)
class Guard:
    """Which addresses may be called: the global ones, and those in the networks an operator allowed."""

    allowed: tuple[Network, ...] = ()
    resolve: Resolve = resolve

    def check_url(self, url: str, *, resolve_seconds: float = 3, param: str = "url") -> None:
        """Raises UnsafeAddress, naming what is wrong, where the URL must not be called or its name has no address."""
        target = Target.of(url, param)
        try:
            self.addresses(target, resolve_seconds)
        except UnsafeAddress as error:
            raise UnsafeAddress(f"{param}: {error.message}", param=param) from None

    def addresses(self, target: "Target", seconds: float) -> list[Address]:
        """What the target's name resolves to, all of it fit to be called. Raises UnsafeAddress."""
        found = [ip_address(each.partition("%")[0]) for each in self._resolve(target, seconds)]
        for address in found:
            if self._is_allowed(address):
                continue
            if not is_global(address):
                raise UnsafeAddress(f"{target.host} is at {address}, which is not a public address")
            if target.scheme != "https":
                raise UnsafeAddress(f"{target.host} is at {address}, where only https may be used, not {target.scheme}")
        return found

    def _is_allowed(self, address: Address) -> bool:
        plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
        return any(plain in network for network in self.allowed if network.version == plain.version)

    def _resolve(self, target: "Target", seconds: float) -> Sequence[str]:
        """In a thread, since the system's resolver takes as long as it likes."""
        outcome: list[Sequence[str] | OSError] = []

        def look_up() -> None:
            try:
                outcome.append(self.resolve(target.host, target.port))
            except (OSError, UnicodeError) as error:
                outcome.append(OSError(str(error)))

        thread = threading.Thread(target=look_up, name="resolve", daemon=True)
        thread.start()
        thread.join(max(0.0, seconds))
        if not outcome:
            raise UnsafeAddress(f"the name {target.host} was not resolved in time")
        [found] = outcome
        if isinstance(found, OSError) or not found:
            raise UnsafeAddress(f"the name {target.host} has no address")
        return found


@dataclass(frozen=True)
class Target:
    """A URL taken apart, once: what is checked is what is called. `path` has the query with it."""

    scheme: str
    host: str
    port: int
    path: bytes
    authority: bytes

    @classmethod
    def of(cls, url: str, param: str = "url") -> "Target":
        """Raises UnsafeAddress for what is no http or https URL, or holds credentials or a fragment."""
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise UnsafeAddress(f"{param}: not a URL such as https://example.com/hook", param=param) from None
        if len(url) > LONGEST_URL or not url.isprintable() or " " in url or "\\" in url:
            raise UnsafeAddress(
                f"{param}: a URL has at most {LONGEST_URL} characters, and no spaces or backslashes", param=param
            )
        if parsed.scheme not in ("https", "http") or not parsed.host:
            raise UnsafeAddress(
                f"{param}: must begin with https:// and a host, as https://example.com/hook", param=param
            )
        if parsed.userinfo:
            raise UnsafeAddress(f"{param}: must hold no user name or password", param=param)
        if parsed.fragment:
            raise UnsafeAddress(f"{param}: must have no part after #, which is never sent", param=param)
        host = parsed.raw_host.decode("ascii")
        port = parsed.port if parsed.port is not None else 443 if parsed.scheme == "https" else 80
        if not 0 < port < 2**16:
            raise UnsafeAddress(f"{param}: a port is a number from 1 to 65535, not {port}", param=param)
        return cls(parsed.scheme, host, port, parsed.raw_path, parsed.netloc)


def is_global(address: Address) -> bool:
    """Whether an address is anybody's on the internet: also none that only stands for another one which is not."""
    if any(address in network for network in _REFUSED if network.version == address.version):
        return False
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(address.packed[-4:])
        if inner is not None:
            return is_global(inner)
    odd = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    return address.is_global and not odd


@dataclass(frozen=True)
class Limits:
    """Of one exchange, in seconds: `whole` from the look at the name to the end of the answer's head, `body` for the
    part of the answer's body that is read, at most `body_bytes` of it."""

    connect: float = 5
    read: float = 10
    whole: float = 15
    body: float = 1
    body_bytes: int = 64 * 2**10


@dataclass(frozen=True)
class Answer:
    """`body` is the beginning of what came, as it came; `headers` have names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class CallFailed(Exception):
    """No answer: its text says why, and names no address inside."""


def post(url: str, body: bytes, headers: Mapping[str, str], guard: Guard, limits: Limits) -> Answer:
    """One POST. Raises UnsafeAddress where the name is, by now, somewhere it must not be, and CallFailed."""
    target = Target.of(url)
    backend = _CheckedBackend(guard, target, limits)
    where = httpcore.URL(scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path)
    named = [
        (b"Host", target.authority),
        (b"Content-Length", str(len(body)).encode()),
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
        *((name.encode(), value.encode()) for name, value in headers.items()),
    ]
    timeout = {"connect": limits.connect, "read": limits.read, "write": limits.read, "pool": limits.whole}
    pool = httpcore.ConnectionPool(ssl_context=_trust(), network_backend=backend, retries=0)
    try:
        with pool, pool.stream("POST", where, headers=named, content=body, extensions={"timeout": timeout}) as response:
            received = _beginning(response, backend, limits)
            told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Answer(response.status, told, received)
    except httpcore.TimeoutException:
        raise CallFailed(backend.told_late()) from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise CallFailed(_told(error)) from None


@lru_cache
def _trust() -> ssl.SSLContext:
    """The system's certificates, read once."""
    return ssl.create_default_context()


def _beginning(response: httpcore.Response, backend: "_CheckedBackend", limits: Limits) -> bytes:
    """Of the body. The answer is known by its status: a body that does not end, or breaks off, changes nothing."""
    backend.deadline = min(backend.deadline, time.monotonic() + limits.body)
    received = bytearray()
    try:
        for chunk in response.iter_stream():
            received += chunk
            if len(received) >= limits.body_bytes:
                break
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError):
        pass
    return bytes(received[: limits.body_bytes])


def _told(error: Exception) -> str:
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.__cause__.verify_message}"
    if isinstance(error, httpcore.RemoteProtocolError):
        return f"the answer is not HTTP, or broke off: {error}"[:300]
    return f"the connection failed: {error}"[:300]


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to the address that was checked, and lets nothing last beyond the deadline."""

    def __init__(self, guard: Guard, target: Target, limits: Limits) -> None:
        self._guard = guard
        self._target = target
        self._limits = limits
        self._plain = httpcore.SyncBackend()
        self._connected = False
        self.deadline = time.monotonic() + limits.whole

    def told_late(self) -> str:
        if not self._connected:
            return f"no connection in {self._limits.connect:g} s"
        return f"no answer in time: {self._limits.read:g} s for the next byte, {self._limits.whole:g} s for all"

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        assert (host, port) == (self._target.host, self._target.port), (host, port)
        deadline = min(self.deadline, time.monotonic() + self._limits.connect)
        addresses = self._guard.addresses(self._target, deadline - time.monotonic())
        failed: Exception = httpcore.ConnectTimeout()
        for address in addresses:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            try:
                stream = self._plain.connect_tcp(str(address), port, remaining, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                self._connected = True
                return _Deadlined(stream, self)
        raise failed


class _Deadlined(httpcore.NetworkStream):
    """A connection whose every step ends by the backend's deadline: a byte now and then does not keep it open."""

    def __init__(self, stream: httpcore.NetworkStream, backend: _CheckedBackend) -> None:
        self._stream = stream
        self._backend = backend

    def _remaining(self, timeout: float | None, late: type[httpcore.TimeoutException]) -> float:
        remaining = self._backend.deadline - time.monotonic()
        if remaining <= 0:
            raise late
        return remaining if timeout is None else min(remaining, timeout)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._remaining(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), 2**14):
            self._stream.write(buffer[start : start + 2**14], self._remaining(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        remaining = self._remaining(timeout, httpcore.ConnectTimeout)
        return _Deadlined(self._stream.start_tls(ssl_context, server_hostname, remaining), self._backend)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)
