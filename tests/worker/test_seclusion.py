"""No network for runners: real sockets, tried by processes that are off it, and every runner is."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core import sandbox
from core.settings import Settings
from secateur_wire.errors import UnusableModel
from tests.worker.conftest import eventually
from worker.doctor import examination
from worker.processes import ChildProcess, spawn
from worker.runner.client import RUNNER, runner_environment
from worker.runner.fork_server import fork_runner

TRY = """
import ctypes, json, os, socket, subprocess, sys, threading
from core.seclusion import seclude

def reach(port, family=socket.AF_INET):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) if port else socket.socket(family):
            return "reached"
    except OSError as error:
        return error.strerror

port = int(sys.argv[1])
told = {"before": reach(port)}
going, heard = threading.Event(), []
thread = threading.Thread(target=lambda: (going.wait(), heard.append(reach(port))))
thread.start()
told["refused"] = seclude()
going.set()
thread.join()
told["after"], told["thread"] = reach(port), heard[0]
told["families"] = [reach(0, family) for family in (socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET)]
told["unix"] = reach(0, socket.AF_UNIX)
pair = socket.socketpair()
code = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)"
told["child"] = subprocess.run([sys.executable, "-c", code, str(port)], stderr=subprocess.DEVNULL).returncode
libc = ctypes.CDLL(None, use_errno=True)
told["borrowed"] = libc.syscall(438, os.pidfd_open(os.getppid()), 0, 0), ctypes.get_errno()
told["ring"] = libc.syscall(425, 1, None), ctypes.get_errno()
print(json.dumps(told))
"""
NO_FAMILY, NOT_PERMITTED = "Address family not supported by protocol", 1


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_who_is_off_the_network_reaches_nothing_and_neither_does_what_it_starts(listening: int) -> None:
    tried = subprocess.run([sys.executable, "-c", TRY, str(listening)], capture_output=True, text=True)
    assert tried.returncode == 0, tried.stderr
    told = json.loads(tried.stdout)
    assert told["before"] == "reached" and told["refused"] is None, "nothing is shown"
    assert told["after"] == told["thread"] == NO_FAMILY
    assert told["families"] == [NO_FAMILY] * 3 and told["child"] == 1
    assert told["unix"] == "reached", "processes of this machine talk to each other"
    assert told["borrowed"] == [-1, NOT_PERMITTED] and told["ring"] == [-1, NOT_PERMITTED]


REACH = """
import sys
from core import sandbox
from core.settings import Settings
sandbox._MODULES["reaching"], sandbox.MEMORY_BYTES["reaching"] = "tests.worker.reaching", 2**29
sandbox.seal = sandbox.seal if sys.argv[1] == "filter" else lambda: "none here"
sandbox.serve_parent()
"""


def reached(reader: str, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch, *ways: str) -> dict[str, str]:
    """Return what the child of a reader reaches, by these ways or all, that is handed a folder of one file."""
    (folder / "served").mkdir()
    (folder / "served" / "a").write_text("GGUF")
    (folder / "api-key").write_text("secret")
    program = [sys.executable, "-c", REACH, kind]
    popen = subprocess.Popen
    monkeypatch.setattr(sandbox.subprocess, "Popen", lambda command, **rest: popen(program, **rest))
    monkeypatch.setitem(sandbox._UNREAD, "reaching", UnusableModel)
    monkeypatch.setitem(sandbox._RESULT_BYTES, "reaching", 2**20)
    asked = {"as_reader": reader, "key": str(folder / "api-key"), "format": "parquet", "ways": ways}
    return sandbox.run_sandboxed("reaching", folder / "served", "served", 4, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("reader", sandbox._MODULES)
def test_a_child_that_reads_what_strangers_wrote_reaches_nothing(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = reached(reader, tmp_path, "filter", monkeypatch)
    assert outcome.pop("served") == "GGUF"
    assert len(outcome) == 12 and set(outcome.values()) == {"Operation not permitted"}
    assert (tmp_path / "api-key").read_text() == "secret"


def test_without_a_filter_such_a_child_opens_no_file_and_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = ("the key", "environment", "memory", "a connection", "a socket")
    outcome = reached("gguf", tmp_path, "none", monkeypatch, *ways)
    assert {outcome[name] for name in ways} == {"Too many open files"}


@contextmanager
def started(kind: str, log: Path) -> Iterator[ChildProcess]:
    """A runner that waits for its spec."""
    with open(log, "ab") as stderr:
        seen = runner_environment()
        forked = fork_runner(name="runner", stderr=stderr, environment=seen, variables={}) if kind == "forked" else None
        runner = forked or spawn(
            RUNNER, name="runner", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, environment=seen
        )
    try:
        yield runner
    finally:
        runner.end(5, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["forked", "executed"])
def test_a_runner_is_off_the_network_before_it_is_told_what_to_do(kind: str, tmp_path: Path) -> None:
    with started(kind, tmp_path / "log") as runner:
        status = Path(f"/proc/{runner.pid}/status")
        eventually(lambda: "Seccomp:\t2\n" in status.read_text() or None)
        assert "NoNewPrivs:\t1\n" in status.read_text()
    assert "network" not in (tmp_path / "log").read_text()


def test_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from core import seclusion

    monkeypatch.setattr(seclusion.platform, "machine", lambda: "riscv64")
    assert seclusion.seclude() == "there is no filter for linux on riscv64"


def test_the_doctor_warns_where_the_kernel_takes_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examination.check_seclusion(Settings()).state == "ok"
    monkeypatch.setattr(examination, "seclusion_refusal", lambda: "the kernel takes no filter: Invalid argument")
    warned = examination.check_seclusion(Settings())
    assert warned.state == "warning" and "children that read uploads" in warned.detail
