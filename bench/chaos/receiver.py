"""A receiver of webhooks, which writes down what it was sent and answers nothing while it is told to hang."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")
_LOOK_SECONDS = 0.1


class Receiver(ThreadingHTTPServer):
    """Held as a context. `received` gets a line of JSON for each delivery it answered: `when`, `path`, `id`, `body` as
    it came, and the headers it was signed with; the line is on the disk before the answer goes.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.received = folder / "received.jsonl"
        self.received.parent.mkdir(parents=True, exist_ok=True)
        self.received.touch()
        self._lock = threading.Lock()
        self._hangs_until = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def hang(self, seconds: float) -> None:
        """Answer nothing for so long, neither to what is on its way nor to what comes meanwhile."""
        self._hangs_until = time.monotonic() + seconds

    def take(self, path: str, headers: dict[str, str | None], body: str) -> bool:
        """Write a delivery down, once nothing hangs; False where the receiver ended before."""
        while time.monotonic() < self._hangs_until:
            if self._ended.wait(_LOOK_SECONDS):
                return False
        line = {"when": time.time(), "path": path, "id": headers["webhook-id"], "body": body, "headers": headers}
        with self._lock, open(self.received, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that gave up on an answer are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.server.take(self.path, {name: self.headers[name] for name in _SIGNED}, body):
            self.send_response(204)
            self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass
