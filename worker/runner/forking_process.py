"""Server process with the runner's libraries loaded: it runs no task itself, but forks a runner for each request.

It starts as `python -m worker.runner.forking_process MODULE…`, with a socket as stdin, and sends `ready` when the
modules are loaded. Each packet on the socket requests one process. The packet holds JSON, with the environment
variables and the modules to load first, and four file descriptors: the process's stdin, stdout and stderr, and the
server's end of another socket. On that socket the server sends `pid N`, and `ended CODE` when the process has ended.
When the other end of that socket is closed, the process is killed with its group and reaped. It is not reaped earlier,
so that the group's id stays valid until then.

The server ends when the socket on stdin is closed, and all forked processes with it. It ends without a message if its
libraries have opened a GPU, because CUDA does not survive a fork.
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
class ForkedChild:
    """ForkedChild process: a descriptor that becomes ready when it has ended, and its owner's socket."""

    pid: int
    end: int
    owner: socket.socket


class RunnerServer:
    """Server that runs until its channel is closed, in one thread, which for the kernel is its processes' parent.

    `run` is called in a forked process, with the requested streams and environment.
    """

    def __init__(self, channel: socket.socket, run: Callable[[], NoReturn]) -> None:
        self._channel = channel
        self._run = run
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ, None)
        self._running: set[ForkedChild] = set()

    def serve(self) -> None:
        """Send `ready`, and answer requests until the channel is closed."""
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
                elif forked in self._running:  # it was not released a moment ago
                    if key.fd == forked.end:
                        self._report_end(forked)
                    else:
                        self._release(forked)

    def _fork(self, environment: dict[str, str], files: list[int]) -> None:
        *streams, owner = files
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no memory for another process; the client sees its socket close
            print(f"A runner could not be forked: {error.strerror}.", file=sys.stderr)
            for file in files:
                os.close(file)
            return
        if pid == 0:
            self._close_server_files()
            os.close(owner)
            set_up_fork(server, streams, environment)
            self._run()
        os.setpgid(pid, pid)  # also here, so that no client learns of a process without a group
        for stream in streams:
            os.close(stream)
        forked = ForkedChild(pid, os.pidfd_open(pid), socket.socket(fileno=owner))
        self._running.add(forked)
        _send(forked, f"pid {pid}")
        self._selector.register(forked.end, selectors.EVENT_READ, forked)
        self._selector.register(forked.owner, selectors.EVENT_READ, forked)

    def _report_end(self, forked: ForkedChild) -> None:
        self._selector.unregister(forked.end)
        ended = os.waitid(os.P_PID, forked.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        _send(forked, f"ended {exit_code(ended)}")

    def _release(self, forked: ForkedChild) -> None:
        """Release a process whose owner has closed its socket: kill its group and reap it."""
        if forked.end in self._selector.get_map():
            self._selector.unregister(forked.end)
        self._selector.unregister(forked.owner)
        os.killpg(forked.pid, signal.SIGKILL)
        os.waitpid(forked.pid, 0)
        os.close(forked.end)
        forked.owner.close()
        self._running.remove(forked)

    def _close_server_files(self) -> None:
        """Close the server's own descriptors in a forked process."""
        self._selector.close()
        self._channel.detach()  # this is stdin, which is replaced by the process's own
        for forked in self._running:
            forked.owner.close()
            os.close(forked.end)


def _send(forked: ForkedChild, what: str) -> None:
    with suppress(ConnectionError):  # the client has closed its socket, which the next turn handles
        forked.owner.send(what.encode())


def set_up_fork(server: int, streams: list[int], environment: dict[str, str]) -> None:
    """Turn a forked process into one that looks as if it had been started for its task."""
    os.setpgid(0, 0)
    if not dies_with(server, signal.SIGKILL):
        os._exit(PARENT_ENDED)
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    os.environ.update(environment)


def run_task() -> NoReturn:
    """Run the task of a runner."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
    finish: Callable[[], NoReturn] = import_module("worker.runner.__main__").finish
    finish()


def load(libraries: list[str]) -> None:
    """Load modules that are not loaded yet, for every later fork; a task itself reports modules that fail to load.

    If there is a GPU, the task loads them: a module that opens the GPU cannot be unloaded here.
    """
    missing = [name for name in libraries if name not in sys.modules]
    if not missing or kind_of_machine().has_own_memory:
        return
    with _outside_garbage_collection():
        for name in missing:
            with suppress(Exception):
                import_module(name)


@contextmanager
def _outside_garbage_collection() -> Iterator[None]:
    """Exclude everything loaded inside the context from garbage collection.

    A collection in a forked process would write to pages that all processes share. There is no collection before:
    almost nothing of it is garbage, and the search takes longer than loading many a library.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main(modules: Sequence[str], run: Callable[[], NoReturn] = run_task) -> int:
    """Serve the holder of the other end of stdin; return 1 if a fork could not be a runner."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with _outside_garbage_collection():
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
