"""Processes of a run, forked from one that has loaded the libraries.

Each process of `pytest -n` looks for all tests, and so loads what any of them needs: sixteen seconds of a processor,
most of them for libraries and the product. `forking` has xdist start this file in place of the interpreter: it hands
its streams to the server, stays until the copy that was forked for them has ended, and so is ended in its stead too.
"""

import gc
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

LOADED = (
    "accelerate",
    "api.app",
    "bench.chaos.running",
    "core.engine.evaluation.zero_shot",
    "core.engine.recovery.adapters",
    "core.pipeline.reports.shape_chart",
    "core.pipeline.stages.classifier",
    "core.pipeline.stages.prune",
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
_CODE_BYTES = 2**16
_SERVE = "--serve"


@contextmanager
def forking() -> Iterator[str]:
    """Yield the command that takes the place of `python` inside the context."""
    with TemporaryDirectory(prefix="secateur-test-") as folder:
        address = str(Path(folder) / "fork")
        command = [sys.executable, "-W", "error", __file__, _SERVE, address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline(), "the libraries do not load"
            yield f"{sys.executable} -I -S {__file__} {address}"  # at the end its stdin is closed, and it is waited for


def _join(address: str, code: str) -> None:
    """Have a copy run this code with our streams, and return when it has ended; where we are killed, it is too."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(address)
        socket.send_fds(server, [code.encode()], [0, 1, 2])
        server.recv(1)  # the end: nothing else is ever said


def _serve(address: str) -> None:
    """Load everything, then fork for whoever connects until stdin is closed."""
    gc.disable()
    environment = dict(os.environ)
    for name in LOADED:
        import_module(name)
    os.environ.clear()  # of what libraries set for themselves
    os.environ.update(environment)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a copy ended
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while listening in select.select([listening, sys.stdin], [], [])[0]:
            owner, _ = listening.accept()
            code, streams, _, _ = socket.recv_fds(owner, _CODE_BYTES, 3)
            if os.fork() == 0:
                listening.close()
                _become(streams)
                _run(code.decode())
            for stream in streams:
                os.close(stream)
            owner.close()


def _become(streams: list[int]) -> None:
    """Take the streams; all else is as in a process that was just started."""
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    gc.enable()


def _run(code: str) -> None:
    """Be `python -c CODE`, to the end of the process."""
    main = sys.modules["__main__"] = ModuleType("__main__")
    sys.argv[:] = ["-c"]
    exec(code, main.__dict__)
    sys.exit()


if __name__ == "__main__":
    if sys.argv[1] == _SERVE:
        sys.path[0] = str(Path(__file__).parents[1])
        _serve(sys.argv[2])
    else:
        _join(sys.argv[1], sys.argv[-1])
