"""Fetchers without the seconds that loading their libraries takes: `python -m tests.sources.fetcher_server` is the
worker's runner server, whose copies are fetchers here. They ask the hub whose address the server was started with."""

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

import pytest

from core.settings import Settings
from worker import fork_server, processes, runner_server
from worker.fetching import FETCHER, fetcher_environment
from worker.fork_server import ForkServer
from worker.processes import ChildProcess

Spawn = Callable[..., ChildProcess]


@contextmanager
def fetcher_server(endpoint: str, home: Path) -> Iterator[Spawn]:
    """Lend what starts processes as the worker does, except that fetchers are forked."""
    environment = fetcher_environment(Settings(home=home, hub_endpoint=endpoint))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fork_server, "COMMAND", (sys.executable, "-m", __name__))
        server = ForkServer(environment)

    def spawn(
        command: Sequence[str], *, name: str, stdin: int, stdout: int, stderr: IO[bytes], environment: dict[str, str]
    ) -> ChildProcess:
        if command == FETCHER:
            return server.fork(name=name, stderr=stderr, variables=environment, libraries=())
        return processes.spawn(command, name=name, stdin=stdin, stdout=stdout, stderr=stderr, environment=environment)

    try:
        yield spawn
    finally:
        server.close()


def _finish() -> NoReturn:
    """End this copy as the fetcher it was asked to be does, its messages on the stdout it has now."""
    from worker import fetcher  # which opens a file when it is loaded, and is not for the tests' own process

    with os.fdopen(os.dup(1), "w", buffering=1) as messages:
        fetcher._messages = messages
        code = fetcher.main()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for library in ("worker.fetcher", "worker.fetcher_datasets", "worker.fetcher_images"):
        import_module(library)
    pytest.MonkeyPatch().setattr(runner_server, "finish", _finish)
    runner_server.RunnerServer(socket.socket(fileno=0)).serve()
