"""A receiver of webhooks, which writes down what it was sent and answers nothing while it is told to hang."""

import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

_SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")
_LOOK_SECONDS = 0.1


class Receiver:
    """Held as a context. `received` gets a line of JSON for each delivery it answered: `when`, `path`, `id`, `event`,
    `body` as it came, and the headers it was signed with; the line is on the disk before the answer goes.
    """

    def __init__(self, folder: Path) -> None:
        self.received = folder / "received.jsonl"
        self.received.parent.mkdir(parents=True, exist_ok=True)
        self.received.touch()
        self._lock = threading.Lock()
        self._hangs_until = 0.0
        self._ended = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def hang(self, seconds: float) -> None:
        """Answer nothing for so long, neither to what is on its way nor to what comes meanwhile."""
        self._hangs_until = time.monotonic() + seconds

    def take(self, path: str, headers: dict[str, str], body: str) -> bool:
        """Write a delivery down, once nothing hangs; False where the receiver ended before."""
        while time.monotonic() < self._hangs_until:
            if self._ended.wait(_LOOK_SECONDS):
                return False
        line = json.dumps(
            {
                "when": time.time(),
                "path": path,
                "id": headers.get("webhook-id"),
                "event": _type(body),
                "body": body,
                "headers": {name: headers.get(name) for name in _SIGNED},
            }
        )
        with self._lock, open(self.received, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.receiver = receiver

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: tuple[str, int]
    ) -> None:
        """Callers that gave up on an answer are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.server.receiver.take(self.path, headers, body):
            self.send_response(204)
            self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def _type(body: str) -> str | None:
    with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
        return str(json.loads(body)["type"])
    return None
