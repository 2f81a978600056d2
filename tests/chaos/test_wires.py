"""Wires that fall silent: bytes stop both ways, nothing ends, and then it is dropped and new connections pass."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bench.chaos.wires import Wire
from bench.parts import free_port

PATIENCE = 10
SILENCE = 0.3


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Path]:
    """A socket file that gives back what it gets."""
    file = tmp_path / "echo"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(file))
    server.listen()

    def answer(client: socket.socket) -> None:
        with client:
            while data := client.recv(1000):
                client.sendall(data)

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield file
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.fixture
def wire(echo: Path) -> Iterator[Wire]:
    with closing(Wire(echo)) as passing:
        yield passing


def connected(wire: Wire) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wire.port), timeout=PATIENCE)


def said(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(1000)


def is_silent(client: socket.socket) -> bool:
    """Tell whether nothing comes, no end either."""
    client.settimeout(SILENCE)
    try:
        client.recv(1000)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE)
    return False


def is_ended(client: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        return client.recv(1000) == b""
    return True


def test_a_silent_wire_holds_bytes_and_ends_and_is_then_dropped(wire: Wire) -> None:
    with closing(connected(wire)) as old:
        assert said(old, b"before") == b"before"
        wire.fall_silent()
        old.sendall(b"meanwhile")
        with closing(connected(wire)) as new:
            new.sendall(b"new")
            assert is_silent(old) and is_silent(new)
            wire.heal()
            assert new.recv(1000) == b"new", "those made meanwhile go on"
        assert is_ended(old)
    with closing(connected(wire)) as later:
        assert said(later, b"after") == b"after"


def test_other_wires_to_the_same_server_go_on(wire: Wire, echo: Path) -> None:
    wire.fall_silent()
    with closing(Wire(echo)) as other, closing(connected(other)) as client:
        assert said(client, b"here") == b"here"


def test_an_end_passes_and_a_server_that_is_away_ends_a_connection_at_once(wire: Wire) -> None:
    with closing(connected(wire)) as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1000) == b""
    with closing(Wire(free_port())) as to_nobody, closing(connected(to_nobody)) as client:
        assert is_ended(client)
