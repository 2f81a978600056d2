"""File locks between processes of one machine: the kernel releases them when the holder ends, for whatever reason."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


def _do_nothing() -> None:
    """Do nothing while others hold the lock."""


def acquire(file: IO[str], wait: Callable[[], None] = _do_nothing) -> None:
    """Lock an open file; if others hold it, `wait` is called before waiting for them."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wait()
        fcntl.flock(file, fcntl.LOCK_EX)


@contextlib.contextmanager
def shared(path: Path) -> Iterator[IO[str]]:
    """Hold a shared lock on a file inside the `with`; wait for an exclusive lock to end first."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file


@contextlib.contextmanager
def locked(path: Path, wait: Callable[[], None] = _do_nothing) -> Iterator[None]:
    """Hold an exclusive lock on a file inside the `with`; `wait` is called before waiting for others."""
    with open(path, "a") as file:
        acquire(file, wait)
        yield
