"""Calls to addresses that users give, if a policy allows it, within time limits that no server can exceed.

The connection is made to the address that was checked, so that a later change of the name has no effect. TLS still
verifies the name. Redirects are not followed; no proxy, cookies or decompression are used.
"""

import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import httpcore

from core.http.address_policy import AddressPolicy, CallTarget


@dataclass(frozen=True)
class Limits:
    """Time limits of one HTTP exchange, in seconds, and the largest number of bytes read from the response body.

    `total` lasts from the resolution of the name to the end of the response's head. `body` limits the time for reading
    the body; at most `body_bytes` of it are read.
    """

    connect: float = 5
    read: float = 10
    total: float = 15
    body: float = 1
    body_bytes: int = 64 * 2**10


@dataclass(frozen=True)
class OutboundResponse:
    """Answer to a call: `body` is its beginning, unchanged; `headers` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class CallFailed(Exception):
    """Call without an answer; the text says why, and contains no internal address."""


def post(
    url: str, body: bytes, headers: Mapping[str, str], address_policy: AddressPolicy, limits: Limits
) -> OutboundResponse:
    """Send one POST; raises UnsafeAddress if the name now resolves to a forbidden address, and CallFailed."""
    sent = {"Content-Length": str(len(body)), **headers}
    return _exchange("POST", url, body, sent, address_policy, limits)


def get(url: str, headers: Mapping[str, str], address_policy: AddressPolicy, limits: Limits) -> OutboundResponse:
    """Send one GET; raises as `post` does."""
    return _exchange("GET", url, b"", headers, address_policy, limits)


def _exchange(
    method: str, url: str, body: bytes, headers: Mapping[str, str], address_policy: AddressPolicy, limits: Limits
) -> OutboundResponse:
    target = CallTarget.of(url)
    backend = _CheckedBackend(address_policy, target, limits)
    where = httpcore.URL(scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path)
    named = [
        (b"Host", target.authority),
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
        *((name.encode(), value.encode()) for name, value in headers.items()),
    ]
    timeout = {"connect": limits.connect, "read": limits.read, "write": limits.read, "pool": limits.total}
    pool = httpcore.ConnectionPool(ssl_context=_tls_context(), network_backend=backend, retries=0)
    try:
        with pool, pool.stream(method, where, headers=named, content=body, extensions={"timeout": timeout}) as response:
            received = _read_beginning(response, backend, limits)
            received_headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
            }
            return OutboundResponse(response.status, received_headers, received)
    except httpcore.TimeoutException:
        raise CallFailed(backend.timeout_text()) from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise CallFailed(_failure_text(error)) from None


@lru_cache
def _tls_context() -> ssl.SSLContext:
    """Return the TLS context with the system's certificates, which are read once."""
    return ssl.create_default_context()


def _read_beginning(response: httpcore.Response, backend: "_CheckedBackend", limits: Limits) -> bytes:
    """Return the first bytes of the body; an endless or incomplete body is no error, since the status is known."""
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


def _failure_text(error: Exception) -> str:
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.__cause__.verify_message}"
    if isinstance(error, httpcore.RemoteProtocolError):
        return f"the answer is not HTTP, or broke off: {error}"[:300]
    return f"the connection failed: {error}"[:300]


class _CheckedBackend(httpcore.NetworkBackend):
    """Network backend that connects to the checked address, and ends every operation at the deadline."""

    def __init__(self, address_policy: AddressPolicy, target: CallTarget, limits: Limits) -> None:
        self._address_policy = address_policy
        self._target = target
        self._limits = limits
        self._plain = httpcore.SyncBackend()
        self._connected = False
        self.deadline = time.monotonic() + limits.total

    def timeout_text(self) -> str:
        if not self._connected:
            return f"no connection in {self._limits.connect:g} s"
        return f"no answer in time: {self._limits.read:g} s for the next byte, {self._limits.total:g} s for all"

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
        addresses = self._address_policy.addresses(self._target, deadline - time.monotonic())
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
                return _DeadlineStream(stream, self)
        raise failed


class _DeadlineStream(httpcore.NetworkStream):
    """Connection on which every operation ends at the backend's deadline, even if single bytes keep arriving."""

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
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, remaining), self._backend)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)
