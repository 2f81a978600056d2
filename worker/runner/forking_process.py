"""A runner with its libraries loaded that never runs a task: for each it is asked for it forks, and the copy does it.

`python -m worker.runner.forking_process MODULE…`, with a socket as stdin on which it says `ready` with the modules
loaded. Each packet there asks for one process: environment variables, and modules to load first, as JSON, with four
file descriptors, to be its stdin, stdout and stderr, and the server's end of a socket on which it says `pid N`, and
`ended CODE` once the process has. Where the other end of that is closed, the process is killed with its group, and
reaped: not before, so that until then the group's id is its own.

The server ends where the socket on stdin is closed, and all it forked with it. It ends without a word where its
libraries have opened a GPU: CUDA does not survive a fork.
"""

import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from core.device_kinds import DEVICE_KINDS, kind_of_machine
from worker.launch import PARENT_ENDED, dies_with
from worker.processes import exit_code, has_opened
from worker.runner.fork_server import PROCESS_NAME

REQUEST_BYTES = 2**16
PR_SET_NAME = 15


@dataclass(frozen=True)
class Forked:
    """One process, by what is watched: a descriptor that is ready once it has ended, and its owner's socket."""

    pid: int
    end: int
    owner: socket.socket


class RunnerServer:
    """Serves until its channel is closed. One thread, which the kernel takes its processes' parent to be.

    `run` is what a copy does, with the streams and the environment it was asked for with.
    """

    def __init__(self, channel: socket.socket, run: Callable[[], NoReturn]) -> None:
        self._channel = channel
        self._run = run
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ, None)
        self._running: set[Forked] = set()

    def serve(self) -> None:
        """Say that it can be asked, and do what it is asked until nobody can any more."""
        self._channel.send(b"ready")
        while True:
            for key, _ in self._selector.select():
                forked = key.data
                if forked is None:
                    request, files, _, _ = socket.recv_fds(self._channel, REQUEST_BYTES, 4)
                    if not request:
                        return
                    fork_request = json.loads(request)
                    load(fork_request["libraries"])
                    self._fork(fork_request["variables"], files)
                elif forked in self._running:  # not let go a moment ago
                    if key.fd == forked.end:
                        self._report_end(forked)
                    else:
                        self._release(forked)

    def _fork(self, environment: dict[str, str], files: list[int]) -> None:
        *streams, owner = files
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no memory for another; whoever asked sees that there is none
            print(f"A runner could not be forked: {error.strerror}.", file=sys.stderr)
            for file in files:
                os.close(file)
            return
        if pid == 0:
            self._forget()
            os.close(owner)
            become(server, streams, environment)
            self._run()
        os.setpgid(pid, pid)  # here too, so that nobody is told of a process that has no group yet
        for stream in streams:
            os.close(stream)
        forked = Forked(pid, os.pidfd_open(pid), socket.socket(fileno=owner))
        self._running.add(forked)
        _send(forked, f"pid {pid}")
        self._selector.register(forked.end, selectors.EVENT_READ, forked)
        self._selector.register(forked.owner, selectors.EVENT_READ, forked)

    def _report_end(self, forked: Forked) -> None:
        self._selector.unregister(forked.end)
        ended = os.waitid(os.P_PID, forked.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        _send(forked, f"ended {exit_code(ended)}")

    def _release(self, forked: Forked) -> None:
        """Its owner has closed its end, and says nothing else."""
        if forked.end in self._selector.get_map():
            self._selector.unregister(forked.end)
        self._selector.unregister(forked.owner)
        os.killpg(forked.pid, signal.SIGKILL)
        os.waitpid(forked.pid, 0)
        os.close(forked.end)
        forked.owner.close()
        self._running.remove(forked)

    def _forget(self) -> None:
        """Close what is the server's alone, in a copy of it."""
        self._selector.close()
        self._channel.detach()  # stdin, which the copy's own takes the place of
        for forked in self._running:
            forked.owner.close()
            os.close(forked.end)


def _send(forked: Forked, what: str) -> None:
    with suppress(ConnectionError):  # it lets go, which is seen next
        forked.owner.send(what.encode())


def become(server: int, streams: list[int], environment: dict[str, str]) -> None:
    """Become a process as if it had been started for its task, in one just forked."""
    os.setpgid(0, 0)
    if not dies_with(server, signal.SIGKILL):
        os._exit(PARENT_ENDED)
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    os.environ.update(environment)


def run_task() -> NoReturn:
    """Be a runner."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
    finish: Callable[[], NoReturn] = import_module("worker.runner.__main__").finish
    finish()


def load(libraries: list[str]) -> None:
    """Load what is not loaded yet, for every copy to come. A task says itself what it cannot load.

    Where there is a GPU they are left to the task: one that opens it could not be got rid of again here.
    """
    missing = [name for name in libraries if name not in sys.modules]
    if not missing or kind_of_machine().has_own_memory:
        return
    with _uncollected():
        for name in missing:
            with suppress(Exception):
                import_module(name)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep all that is loaded meanwhile out of every collection: no copy's first one writes to what all share.

    Nothing is collected before: next to nothing of it is garbage, and looking takes longer than many a library's load.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main(modules: Sequence[str], run: Callable[[], NoReturn] = run_task) -> int:
    """Serve whoever holds the other end of stdin; 1 where a fork would not be a runner."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with _uncollected():
        for name in modules:
            import_module(name)
    if any(kind.files and has_opened(kind.files) for kind in DEVICE_KINDS.values()):
        print("The runner's libraries open the GPU when they are loaded: each task loads them anew.", file=sys.stderr)
        return 1
    RunnerServer(socket.socket(fileno=0), run).serve()
    return 0


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(ended)  # as a runner does
