"""Fast start of runners: they are forked from one process that has already loaded their libraries."""

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

from core.pipeline.stages.registry import RUNS, run_module
from worker.processes import ChildProcess, spawn

COMMAND = (sys.executable, "-P", "-m", "worker.runner.forking_process")
PRELOADED = (
    "worker.runner.__main__",
    *(module for spec in RUNS if (module := run_module(spec)) not in spec.libraries),
    "worker.runner.checkpoint_names",
)
"""Modules that a server loads before its first request; they include the stages, without their slow libraries."""
PACKET_BYTES = 64
PROCESS_NAME = "secateur-runner"
"""Name of a forked runner in process lists; its command line is the server's."""


class ForkedProcess(ChildProcess):
    """Child process of the server, in a process group of its own.

    The server reports how it ended, and reaps it when `_owner`, this side of the socket for that report, is closed. If
    the server has ended, it has killed its children first.
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

    def _poll_exit_code(self) -> int | None:
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
        """Receive the server's next message; return False if there is none yet."""
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
    """One `worker.runner.forking_process` for one environment; it ends with this process, which owns its socket."""

    def __init__(self, environment: Mapping[str, str], command: Sequence[str] | None = None) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = spawn(
                command or (*COMMAND, *PRELOADED),
                name="runner server",
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                environment=environment,
                death_signal=0,  # it must outlive the thread that started it
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

        Raises OSError if the server has ended.
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
    """Return a runner with this environment and these variables, in which `libraries` (modules) are loaded.

    The environment's server is started if none runs. Returns None if runners cannot be forked: without Linux, or if the
    libraries fail to load or open a GPU.
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
    with suppress(OSError):  # it was killed a moment ago
        if server.forks:
            return server.fork(name=name, stderr=stderr, variables=variables, libraries=libraries)
    return None


@atexit.register
def _close() -> None:
    for server in _servers.values():
        server.close()
