"""A receiver of webhooks on loopback, that behaves as the path says: /ok, /status/500, /redirect, /endless, /silent,
/drip, /garbage, /long-head.
"""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event


class Receiver(ThreadingHTTPServer):
    """`received` is all that came whole; `go_on` lets those go on that are silent; `sent` counts bytes of endless
    bodies; `answers` are statuses that /ok gives first, `extra` headers that all answers have.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[Received] = []
        self.connections = 0
        self.go_on = threading.Event()
        self.sent = 0
        self.answers: list[int] = []
        self.extra: dict[str, str] = {}

    def url(self, path: str = "/ok", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"

    def of(self, path: str) -> list[Received]:
        return [each for each in list(self.received) if each.path == path]

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that go away are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append(Received(self.path, headers, body))
        kind = self.path.strip("/").split("/")
        with contextlib.suppress(OSError):
            getattr(self, f"_{kind[0].replace('-', '_')}")(*kind[1:])
        self.close_connection = True

    def _ok(self, *_: str) -> None:
        self._status(str(self.server.answers.pop(0)) if self.server.answers else "200")

    def _status(self, status: str) -> None:
        self.send_response(int(status))
        for name, value in self.server.extra.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"said\0")

    def _redirect(self) -> None:
        self.send_response(307)
        self.send_header("Location", self.server.url("/ok/redirected"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _endless(self) -> None:
        """10 GB of zeros that unpack to more."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\nContent-Encoding: gzip\r\n\r\n")
        while not self.server.go_on.is_set():
            self.wfile.write(bytes(2**16))
            self.server.sent += 2**16

    def _silent(self) -> None:
        self.server.go_on.wait(60)

    def _drip(self) -> None:
        """An answer's head that goes on and on."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.go_on.wait(0.05):
            self.wfile.write(b"a")

    def _drip_body(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not self.server.go_on.wait(0.05):
            self.wfile.write(b"a")

    def _garbage(self) -> None:
        self.wfile.write(bytes(range(256)) * 64)

    def _long_head(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.go_on.is_set():
            self.wfile.write(b"X-Long: " + b"a" * 2**12 + b"\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def receiving(trust: "Trust | None" = None) -> Iterator[Receiver]:
    """A receiver, over TLS where `trust` is given."""
    with Receiver() as server:
        if trust is not None:
            server.socket = trust.server.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


@dataclass
class Trust:
    """Both ends of TLS; `asked` are the names clients asked for."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    asked: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        def note(connection: Any, name: str | None, context: ssl.SSLContext) -> None:
            self.asked.append(name)

        self.server.sni_callback = note
