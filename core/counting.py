"""Progress of long loops, reported by the code that runs them and read by the process around it.

A loop counts itself, and knows nobody who listens; a process that tells others what it does asks `current_work` now and
then. Loops within one another are told together, the outermost first.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

_running: dict[object, str] = {}
"""The state of each loop that runs in this process, the outermost first. Not kept by thread: the one that
asks is another than the one that works."""


def counted(items: Collection[Item], what: str) -> Iterator[Item]:
    """Yield the items; meanwhile this process says that it does `what`, and how many of them are done."""
    with counting(what, len(items)) as count:
        for done, item in enumerate(items):
            count(done)
            yield item


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Have this process report progress on `what` while the body runs.

    Yields a function that takes how many of `total` are done.
    """
    loop = object()

    def count(done: int) -> None:
        _running[loop] = f"{what}: {done:,} of {total:,}"

    count(0)
    try:
        yield count
    finally:
        del _running[loop]


@contextmanager
def working(what: str) -> Iterator[None]:
    """Have this process say that it does `what` while the body runs, of which no steps can be counted."""
    work = object()
    _running[work] = what
    try:
        yield
    finally:
        del _running[work]


def current_work() -> str | None:
    """Return the progress of this process; None where no counted loop runs."""
    return "; ".join(list(_running.values())) or None
