"""Runners without the seconds that loading their libraries takes: forked from one process that has loaded them."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from core.pipeline.stages.registry import SPECS, run_module
from worker.processes import ChildProcess, spawn

COMMAND = (sys.executable, "-P", "-m", "worker.runner.forking_process")
PRELOADED = (
    "worker.runner.__main__",
    *(module for task, spec in SPECS.items() if (module := run_module(task)) not in spec.libraries),
    "worker.runner.checkpoint_names",
)
"""Modules that a server loads before it can be asked: those of the stages too, but for what is slow to load."""
PACKET_BYTES = 64
PROCESS_NAME = "secateur-runner"
"""What tools call a runner that was forked, whose command line is the server's."""


class ForkedProcess(ChildProcess):
    """A child process of the server, in a process group of its own.

    The server says how it ended, and reaps it once `_owner`, our end of the socket it says so on, is closed; where the
    server is gone it has killed what it forked.
    """

    def __init__(self, owner: socket.socket, name: str, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        super().__init__(name, stdin, stdout, None)
        self._owner = owner
        self._pid: int | None = None
        self._ended: int | None = None

    @property
    def pid(self) -> int:
        while self._pid is None and self._ended is None:
            self._receive(0)
        return self._pid or 0

    def _look(self) -> int | None:
        while self._ended is None and self._receive(socket.MSG_DONTWAIT):
            pass
        return self._ended

    def _reap(self) -> int:
        while self._ended is None:
            self._receive(0)
        self._owner.close()
        return self._ended

    def send(self, number: int) -> None:
        if self.pid:
            super().send(number)

    def send_group(self, number: int) -> None:
        if self.pid:
            super().send_group(number)

    def _receive(self, flags: int) -> bool:
        """Take in what the server says next; False where it has nothing to say yet."""
        try:
            said = self._owner.recv(PACKET_BYTES, flags).decode()
        except BlockingIOError:
            return False
        except ConnectionResetError:
            said = ""
        what, _, number = said.partition(" ")
        if what == "pid":
            self._pid = int(number)
        else:
            self._ended = int(number) if said else -signal.SIGKILL
        return True


class ForkServer:
    """One `worker.runner.forking_process`, for one environment. It ends with us: nobody else holds its socket."""

    def __init__(self, environment: Mapping[str, str], command: Sequence[str] | None = None) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = spawn(
                command or (*COMMAND, *PRELOADED),
                name="runner server",
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                environment=environment,
                death_signal=0,  # it must outlive the thread that was the first to need it
            )
        self.forks = bool(self._channel.recv(PACKET_BYTES))
        """Whether it has loaded its libraries and can be forked."""
        if not self.forks:
            self.close()

    def is_running(self) -> bool:
        return self._process.is_running()

    def fork(
        self, *, name: str, stderr: IO[bytes], variables: Mapping[str, str], libraries: Sequence[str]
    ) -> ForkedProcess:
        """Fork a runner with pipes as stdin and stdout, and with these environment variables and libraries.

        Raises OSError where the server has ended.
        """
        ours, owner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = os.pipe()
        process = ForkedProcess(ours, name, os.fdopen(to_stdin, "wb"), os.fdopen(from_stdout, "rb"))
        try:
            files = [stdin, stdout, stderr.fileno(), owner.fileno()]
            request = {"variables": dict(variables), "libraries": list(libraries)}
            socket.send_fds(self._channel, [json.dumps(request).encode()], files)
        except OSError:
            process.close()
            ours.close()
            raise
        finally:
            owner.close()
            os.close(stdin)
            os.close(stdout)
        return process

    def close(self) -> None:
        self._channel.close()
        self._process.end()


_servers: dict[frozenset[tuple[str, str]], ForkServer] = {}
_starting = threading.Lock()


def fork_runner(
    *,
    name: str,
    stderr: IO[bytes],
    environment: Mapping[str, str],
    variables: Mapping[str, str],
    libraries: Sequence[str] = (),
) -> ForkedProcess | None:
    """Return a runner with this environment, these variables and `libraries` (modules that are loaded).

    Its server is started where there is none for the environment. None where runners cannot be forked: without Linux,
    or where its libraries do not load, or open a GPU.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    key = frozenset(environment.items())
    with _starting:
        server = _servers.get(key)
        if server is not None and server.forks and not server.is_running():
            server.close()  # it was killed
            server = None
        if server is None:
            server = _servers[key] = ForkServer(environment)
    with suppress(OSError):  # it was killed just now
        if server.forks:
            return server.fork(name=name, stderr=stderr, variables=variables, libraries=libraries)
    return None


@atexit.register
def _close() -> None:
    for server in _servers.values():
        server.close()
