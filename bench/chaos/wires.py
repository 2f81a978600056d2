"""Ways between the services and what they depend on, which can fall silent: no byte, no end, no refusal."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

_CHUNK_BYTES = 2**16


class Wire(ThreadingTCPServer):
    """Passes what comes to a socket file or a port of loopback, from a port of its own until it is closed. Where the
    server is away, a connection ends at once.
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, target: Path | int) -> None:
        super().__init__(("127.0.0.1", 0), BaseRequestHandler)
        self.port = int(self.server_address[1])
        self._target = target
        self._passes = threading.Event()
        self._passes.set()
        self._old: set[socket.socket] = set()
        """Both ends of connections that were made while all passed."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def fall_silent(self) -> None:
        """Hold every byte, and every end, of the connections there are and of new ones."""
        self._passes.clear()

    def heal(self) -> None:
        """Drop the connections that were there when it fell silent; those made since go on."""
        _end(*self._old)
        self._passes.set()

    def close(self) -> None:
        self.heal()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._passes.wait()
        with suppress(OSError), self._reach() as theirs:
            ends = {request, theirs}
            self._old |= ends
            try:
                back = threading.Thread(target=self._pump, args=(theirs, request), daemon=True)
                back.start()
                self._pump(request, theirs)
                back.join()
            finally:
                self._old -= ends

    def _reach(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._target))
        except OSError:
            server.close()
            raise
        return server

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        """Pass bytes one way; where that ends, both ways end."""
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                self._passes.wait()
                target.sendall(data)
        self._passes.wait()
        _end(source, target)


def _end(*connections: socket.socket) -> None:
    for each in connections:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
