"""Locks that processes of one machine hold on files: the kernel frees them when their holder ends, however it does."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


def _wait_unseen() -> None:
    """Tell nobody that there are others."""


def acquire(file: IO[str], wait: Callable[[], None] = _wait_unseen) -> None:
    """Return once nobody else holds an open file; `wait` is called before others are waited for."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wait()
        fcntl.flock(file, fcntl.LOCK_EX)


@contextlib.contextmanager
def shared(path: Path) -> Iterator[IO[str]]:
    """Hold a file inside the `with` as others do at the same time, once nobody holds it alone."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file


@contextlib.contextmanager
def locked(path: Path, wait: Callable[[], None] = _wait_unseen) -> Iterator[None]:
    """Hold a file alone inside the `with`; `wait` is called before others are waited for."""
    with open(path, "a") as file:
        acquire(file, wait)
        yield
