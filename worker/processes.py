"""Start of processes; no other module starts any.

Every process leads a process group of its own, so that it can be ended with everything it started. The kernel kills it
when the thread that started it ends (Linux), so that nothing outlives a `kill -9` of its owner. Start processes from a
thread that lives as long as they should: the main thread, or the supervisor's.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

LAUNCH = Path(__file__).with_name("launch.py")
POLL_SECONDS = 0.02

Stream = int | IO[Any] | None


def peak_resident_bytes(pid: int | str = "self") -> int:
    """Return the peak resident bytes of a process; `getrusage` would count its parent's too, from before `exec`."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def has_opened(paths: str) -> bool:
    """Return whether this process has an open file whose path begins with `paths`."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor that listed them is closed
            if str(link.readlink()).startswith(paths):
                return True
    return False


class ChildProcess(ABC):
    """Started process, the leader of a group of its own."""

    def __init__(self, name: str, stdin: IO[bytes] | None, stdout: IO[bytes] | None, stderr: IO[bytes] | None) -> None:
        self.name = name
        self._streams = stdin, stdout, stderr
        self._code: int | None = None
        """Its exit code, once it is reaped."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """Return the process id, which is also the id of its group."""

    @abstractmethod
    def _poll_exit_code(self) -> int | None:
        """Return the exit code, None while it runs; do not reap it."""

    @abstractmethod
    def _reap(self) -> int:
        """Wait for its end and reap it."""

    @property
    def stdin(self) -> IO[bytes]:
        return _there(self._streams[0])

    @property
    def stdout(self) -> IO[bytes]:
        return _there(self._streams[1])

    @property
    def stderr(self) -> IO[bytes]:
        return _there(self._streams[2])

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, None while it runs; a negative code is the signal that ended it.

        This does not reap it: see `end`.
        """
        return self._poll_exit_code() if self._code is None else self._code

    def is_running(self) -> bool:
        return self.exit_code is None

    def wait(self, timeout: float) -> int | None:
        """Return the exit code, or None if it still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (code := self.exit_code) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return code

    def send(self, number: int) -> None:
        """Send a signal to the process alone, not to its group; an ended process is not reaped: see `end`."""
        if self._code is None:
            os.kill(self.pid, number)

    def send_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def end(self, grace_seconds: float = 0, first: int = signal.SIGTERM) -> int:
        """End the whole group and reap its leader; call this for every started process.

        If the leader runs, it and its group get the signal `first`, and the leader has up to `grace_seconds` to end.
        Then the rest of the group is killed. The leader is reaped last, so that the group's id cannot be reused before.
        """
        if self._code is None:
            if self.is_running() and grace_seconds > 0:
                self.send_group(first)
                self.wait(grace_seconds)
            self.send_group(signal.SIGKILL)
            self._code = self._reap()
        self.close()
        return self._code

    def close(self) -> None:
        """Close this side of the pipes."""
        for stream in self._streams:
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _there(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


class _Executed(ChildProcess):
    """Child process that this process started itself."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str) -> None:
        super().__init__(name, popen.stdin, popen.stdout, popen.stderr)
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    def _poll_exit_code(self) -> int | None:
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None if ended is None else exit_code(ended)

    def _reap(self) -> int:
        return self._popen.wait()


def exit_code(ended: os.waitid_result) -> int:
    """Return the exit code of an ended process; a negative code is the signal that ended it."""
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def spawn(
    command: Sequence[str],
    *,
    name: str,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    user: str | None = None,
    death_signal: int = signal.SIGKILL,
) -> ChildProcess:
    """Start `command` in its own process group; it gets `death_signal` when the calling thread ends.

    `environment` replaces this process's environment. `user` (root only) is the account to run as. A `death_signal` of
    0 means none. A command that cannot be started ends with exit code 127.
    """
    launcher = [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), str(int(death_signal)), user or "-"]
    popen = subprocess.Popen(
        [*launcher, *command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=None if environment is None else dict(environment),
        cwd=folder,
        process_group=0,
    )
    return _Executed(popen, name)


def run(
    command: Sequence[str],
    *,
    name: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    user: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end; return its exit code and its output, stdout and stderr together."""
    child = spawn(
        command,
        name=name,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        environment=environment,
        folder=folder,
        user=user,
    )
    try:
        output = child.stdout.read().decode(errors="replace")
        child.wait(timeout=60)  # it has closed its output and ends soon
    finally:
        code = child.end(grace_seconds=5)
    return subprocess.CompletedProcess(list(command), code, output)


def started_at(pid: int) -> float | None:
    """Return the start time of process `pid` (epoch seconds), None if there is none; id and time identify a process."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
