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
import contextlib, socket, sys, threading
def pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    client, _ = server.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ("KEEPIDLE", 8), ("KEEPINTVL", 4), ("KEEPCNT", 3), ("USER_TIMEOUT", 20_000):
        client.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{option}"), value)  # as docker-compose.yml has it
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

    def lose(self, percent: float) -> None:
        """Drop this share of the packets either way, by chance, from here on."""
        most = round((2**32 - 1) * percent / 100)
        drop = f"4,32 0 0 {_RANDOM},53 1 0 {most},6 0 0 {_SHOT},6 0 0 0"
        for device, within in ((f"{self.name}h", []), (f"{self.name}p", ["-n", self.name])):
            _tc(*within, "qdisc", "replace", "dev", device, "clsact")
            _tc(*within, "filter", "replace", "dev", device, "egress", "protocol", "all", "pref", "1", "handle", "1",
                "bpf", "direct-action", "bytecode", drop)  # fmt: skip


_RANDOM = 2**32 - 0x1000 + 56
"""Offset from which a classic BPF program loads a random number: it drops packets where a kernel has no netem."""
_SHOT = 2


def _tc(*arguments: str) -> None:
    subprocess.run(["tc", *arguments], check=True)


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
