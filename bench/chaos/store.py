"""An S3 store on loopback that can fail as stores do, as a process: `python -m bench.chaos.store PORT MOOD_FILE`."""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NoReturn
from wsgiref.types import StartResponse, WSGIEnvironment

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

Mood = Literal["well", "error500", "slow", "half_body"]

SLOW_SECONDS = 1.5
"""Until the store takes a request, where it is slow; then it gives a piece of the answer ten times a second."""
_SLOW_BYTES = 8192
_FAILED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error>"""


class Store:
    """A store, in the mood that a file names.

    `error500` answers every request with S3's InternalError; `slow` has it wait for its answer; `half_body` ends the
    connection after half of the request's body, or of the answer's.
    """

    def __init__(self, mood: Path) -> None:
        self._mood = mood
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        mood = self._mood.read_text()
        if mood == "error500":
            start_response("500 Internal Server Error", [("Content-Type", "application/xml")])
            yield b"" if environ["REQUEST_METHOD"] == "HEAD" else _FAILED
            return
        size = int(environ.get("CONTENT_LENGTH") or 0)
        if mood == "half_body" and size > 1:  # moto never hears of it: what it would do with half is its own
            environ["wsgi.input"].read(size // 2)
            _drop(environ)
        if mood == "slow":
            time.sleep(SLOW_SECONDS)
        content = b"".join(self._moto(environ, start_response))
        if mood == "half_body" and len(content) > 1:
            yield content[: len(content) // 2]
            _drop(environ)
        if mood == "slow":
            for start in range(0, len(content), _SLOW_BYTES):
                time.sleep(0.1)
                yield content[start : start + _SLOW_BYTES]
        else:
            yield content


def _drop(environ: WSGIEnvironment) -> NoReturn:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)  # else the rest of the body is waited for
    raise ConnectionAbortedError


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Nobody reads of the thousands of requests of a run."""


def store_server(port: int, mood: Path) -> BaseWSGIServer:
    """Return a server that is yet to serve."""
    return make_server("127.0.0.1", port, Store(mood), threaded=True, request_handler=_Quiet)


def main() -> None:
    store_server(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()


if __name__ == "__main__":
    main()
