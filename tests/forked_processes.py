"""Processes of a run, forked from one that has loaded the libraries.

Each process of `pytest -n` looks for all tests, and so loads what any of them needs: sixteen seconds of a processor,
most of them for libraries and the product. `forking` has xdist start this file in place of the interpreter: it hands
its streams to the server, stays until the copy that was forked for them has ended, and ends as that did; where it is
killed, so is the copy. Programs that tests start may be such copies too, where it does not matter what is loaded when
they begin: `warm_python`.
"""

import atexit
import gc
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NoReturn

LOADED = (
    "accelerate",
    "api.app",
    "core.engine.evaluation.zero_shot",
    "core.engine.recovery.adapters",
    "core.pipeline.reports.charts",
    "core.pipeline.stages.classifier",
    "core.pipeline.stages.pruning",
    "fastapi.testclient",
    "pandas",
    "playwright.sync_api",
    "pyarrow.parquet",
    "timm",
    "torch_pruning",
    "transformers.modeling_utils",
    "worker.cli",
    "worker.dispatcher.clock",
    "worker.embedded.serve",
    "worker.supervisor.supervisor",
)
"""Modules that tests import of others and of the product; nothing of pytest, which has yet to see its plugins and the
tests, nothing that starts a thread when it is loaded (onnxruntime does), for copies would be without it, and nothing
that changes the environment on purpose (the runner's program does)."""
_ADDRESS = "SUITE_FORKS"
"""Variable that says to a run's processes where the server listens."""
_REQUEST_BYTES = 2**17
_SERVE = "--serve"
_LIKE_PYTHON = "--like-python"
_PASSED_ON = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@contextmanager
def forking() -> Iterator[str]:
    """Yield the command that takes the place of `python` inside the context."""
    with TemporaryDirectory(prefix="secateur-test-") as folder:
        address = str(Path(folder) / "fork")
        command = [sys.executable, "-W", "error", __file__, _SERVE, address]
        environment = os.environ | {_ADDRESS: address}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
            assert server.stdout is not None
            assert server.stdout.readline(), "the libraries do not load"
            yield f"{sys.executable} -I -S {__file__} {address}"  # at the end its stdin is closed, and it is waited for


def warm_python() -> list[str]:
    """Return a command that runs `-c CODE`, `-m MODULE` or `-` with arguments as `python` does, in a process that has
    loaded the libraries; in a run without such processes it is the interpreter. Its process is not the program's own.
    """
    address = os.environ.get(_ADDRESS)
    return [sys.executable] if address is None else [sys.executable, "-I", "-S", __file__, _LIKE_PYTHON, address]


def write_warm_program(file: Path, *arguments: str) -> None:
    """Write a program that is `warm_python` with these arguments, and its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'#!/bin/sh\nexec {shlex.join([*warm_python(), *arguments])} "$@"\n')
    file.chmod(0o755)


def _join(address: str, request: dict[str, Any]) -> int:
    """Have a copy do this with our streams, and return how it ended, once it has. With an environment of its own it is
    told our signals.
    """
    passed_on = _PASSED_ON if "environment" in request else ()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(address)
        signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)  # until the request is on its way: its copy may run before
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        for number in passed_on:
            signal.signal(number, lambda number, _: server.send(str(number).encode()))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
        code = int(server.recv(_REQUEST_BYTES) or 1)
        for number in passed_on:
            signal.signal(number, signal.SIG_DFL)
        return code


class _Server:
    """Forks for whoever connects, and watches over the copies, until stdin is closed."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._selector = selectors.DefaultSelector()
        for source in (listening, sys.stdin):
            self._selector.register(source, selectors.EVENT_READ)
        self._copies: dict[int, tuple[int, socket.socket]] = {}
        """Copies by process id: a descriptor that is ready once the copy has ended, and its owner's socket."""

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    for pid in self._copies:
                        os.kill(pid, signal.SIGKILL)
                    return
                if key.fileobj is self._listening:
                    self._fork()
                elif key.data in self._copies:  # not let go a moment ago
                    self._look(key.data, key.fd)

    def _look(self, pid: int, ready: int) -> None:
        end, owner = self._copies[pid]
        if ready != end:
            said = _received(owner)
            os.kill(pid, int(said or signal.SIGKILL))  # where nothing is said, its owner was killed
            if said:
                return
        self._let_go(pid)

    def _fork(self) -> None:
        owner, _ = self._listening.accept()
        request, streams, _, _ = socket.recv_fds(owner, _REQUEST_BYTES, 3)
        if not request:  # it was killed already
            owner.close()
            return
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            self._listening.close()
            owner.close()
            for end, other in self._copies.values():
                os.close(end)
                other.close()
            _become(streams)
            _run(json.loads(request))
        for stream in streams:
            os.close(stream)
        end = os.pidfd_open(pid)
        self._copies[pid] = end, owner
        for source in (end, owner):
            self._selector.register(source, selectors.EVENT_READ, pid)

    def _let_go(self, pid: int) -> None:
        end, owner = self._copies.pop(pid)
        _, status = os.waitpid(pid, 0)
        for source in (end, owner):
            self._selector.unregister(source)
        with owner, suppress(ConnectionError):  # it was killed
            owner.send(str(os.waitstatus_to_exitcode(status)).encode())
        os.close(end)


def _received(owner: socket.socket) -> bytes:
    try:
        return owner.recv(_REQUEST_BYTES)
    except ConnectionError:
        return b""


def _serve(address: str) -> None:
    """Load everything, then serve."""
    gc.disable()
    environment = dict(os.environ)
    for name in LOADED:
        import_module(name)
    os.environ.clear()  # of what libraries set for themselves
    os.environ.update(environment)
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        _Server(listening).serve()


def _become(streams: list[int]) -> None:
    """Take the streams; all else is as in a process that was just started."""
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    gc.enable()


def _run(request: dict[str, Any]) -> NoReturn:
    """Be `python ARGUMENTS`, to the end of the process; with an environment and a folder where they are given."""
    if "environment" in request:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.path[0] = request["folder"]
        warnings.resetwarnings()
    try:
        _execute(request["arguments"])
        sys.exit()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to take the libraries down would take as long as many a program


def _execute(arguments: list[str]) -> None:
    how, *rest = arguments
    main = sys.modules["__main__"] = ModuleType("__main__")
    if how == "-m":
        module, *sys.argv[1:] = rest
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        code = sys.stdin.read() if how == "-" else rest.pop(0)
        sys.argv[:] = [how, *rest]
        exec(code, main.__dict__)


def _end_likewise(code: int) -> None:
    """End with an exit code, negative for a signal."""
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    if sys.argv[1] == _SERVE:
        sys.path[0] = str(Path(__file__).parents[1])
        _serve(sys.argv[2])
    elif sys.argv[1] == _LIKE_PYTHON:
        asked = {"arguments": sys.argv[3:], "environment": dict(os.environ), "folder": str(Path.cwd())}
        _end_likewise(_join(sys.argv[2], asked))
    else:
        _join(sys.argv[1], {"arguments": ["-c", sys.argv[-1]]})
