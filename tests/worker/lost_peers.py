"""A peer that vanishes without a word: a network namespace whose packets come no further."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.processes import spawn

_FORWARD = """
import socket, sys, threading
def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    client, _ = server.accept()
    inner = socket.socket(socket.AF_UNIX)
    inner.connect(sys.argv[3])
    for pair in ((client, inner), (inner, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""
PORT = 5432


@dataclass(frozen=True)
class Peer:
    """A namespace, its `address`, and whoever serves there; `ours` is this side's address."""

    name: str
    address: str
    ours: str

    def cut(self) -> None:
        """Drop its packets, and those to it, from here on: nothing ends, nothing answers."""
        nobody = ("lladdr", "02:00:00:00:00:01", "nud", "permanent")  # a wire that is down would tell the sender
        assert _ip("neigh", "replace", self.address, *nobody, "dev", f"{self.name}h")
        assert _ip("-n", self.name, "neigh", "replace", self.ours, *nobody, "dev", f"{self.name}p")


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0


@contextmanager
def peer(socket_path: Path) -> Iterator[Peer | None]:
    """A namespace in which `PORT` leads to a server's socket file; None where this system lends no namespaces."""
    number = os.getpid() % 60_000
    name, network = f"sct{number}", f"10.{200 + number // 256 % 50}.{number % 256}"
    if os.geteuid() != 0 or not _ip("netns", "add", name):
        yield None
        return
    try:
        assert _ip("link", "add", f"{name}h", "type", "veth", "peer", "name", f"{name}p", "netns", name)
        assert _ip("addr", "add", f"{network}.1/24", "dev", f"{name}h") and _ip("link", "set", f"{name}h", "up")
        assert _ip("-n", name, "addr", "add", f"{network}.2/24", "dev", f"{name}p")
        assert _ip("-n", name, "link", "set", f"{name}p", "up")
        with forwarded(f"{network}.2", PORT, socket_path, within=["ip", "netns", "exec", name]):
            yield Peer(name, f"{network}.2", f"{network}.1")
    finally:
        _ip("link", "del", f"{name}h")
        _ip("netns", "del", name)


@contextmanager
def forwarded(address: str, port: int, socket_path: Path, *, within: Sequence[str] = ()) -> Iterator[None]:
    """While this lasts, TCP connections to this address lead to a server's socket file."""
    command = [*within, sys.executable, "-I", "-c", _FORWARD, address, str(port), str(socket_path)]
    forwarder = spawn(command, name="forwarder", stdout=subprocess.PIPE)
    try:
        assert forwarder.stdout is not None and forwarder.stdout.readline() == b"ready\n"
        yield
    finally:
        forwarder.end()
