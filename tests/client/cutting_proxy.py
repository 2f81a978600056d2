"""A proxy on loopback that breaks connections where a test says so: what lies behind it is the real service."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Cuts:
    """Connections that are broken, used up from the front: after so many bytes of requests, or of answers.

    What was sent before the cut has arrived; the other direction is broken with it. Of requests that begin with
    `unanswered` all arrives, and the connection breaks once the answer is there, which is lost.
    """

    of_requests: list[int] = field(default_factory=list)
    of_answers: list[int] = field(default_factory=list)
    unanswered: bytes | None = None
    made: int = 0
    ends: list[socket.socket] = field(default_factory=list)

    def break_open(self) -> None:
        """Break the connections there are."""
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting(port: int, cuts: Cuts) -> Iterator[str]:
    """The URL of a proxy before 127.0.0.1:`port`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            cuts.ends += [client, server]
            most_up = cuts.of_requests.pop(0) if cuts.of_requests else None
            most_down = cuts.of_answers.pop(0) if cuts.of_answers and most_up is None else None
            is_lost = threading.Event()
            for source, target, most in ((client, server, most_up), (server, client, most_down)):
                is_answer = source is server
                passing = (source, target, most, cuts, is_lost, is_answer)
                threading.Thread(target=_pass_on, args=passing, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=60)


def _pass_on(
    source: socket.socket,
    target: socket.socket,
    most: int | None,
    cuts: Cuts,
    is_lost: threading.Event,
    is_answer: bool,
) -> None:
    passed = 0
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if is_answer and is_lost.is_set():
                cuts.made += 1
                break
            if not is_answer and cuts.unanswered is not None and data.startswith(cuts.unanswered):
                is_lost.set()
            piece = data if most is None else data[: most - passed]
            target.sendall(piece)
            passed += len(piece)
            if passed == most:
                cuts.made += 1
                break
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
