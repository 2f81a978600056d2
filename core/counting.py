"""Progress of long loops: the loops count themselves, and the process around them reads the count.

A loop does not know who reads its count. A process that reports its current work calls `current_work` at intervals.
Nested loops are reported together, the outermost first.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Work:
    """State of a loop that has finished `done` of `total` steps; `total` is 0 for work without a count."""

    what: str
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.what}: {self.done:,} of {self.total:,}" if self.total else self.what


_running: dict[object, _Work] = {}
"""State of each running loop in this process, the outermost first.

It is not stored by thread, because one thread reads the state while another works.
"""


def counted(items: Collection[Item], what: str) -> Iterator[Item]:
    """Yield the items; meanwhile the process's current work is `what`, with the number of finished items."""
    with counting(what, len(items)) as count:
        for done, item in enumerate(items):
            count(done)
            yield item


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Report progress on `what` while the body runs.

    Yields a function that takes the number of finished steps, up to `total`.
    """
    loop = object()

    def count(done: int) -> None:
        _running[loop] = _Work(what, done, total)

    count(0)
    try:
        yield count
    finally:
        del _running[loop]


@contextmanager
def working(what: str) -> Iterator[None]:
    """Report `what` as the process's current work while the body runs, without a count."""
    work = object()
    _running[work] = _Work(what)
    try:
        yield
    finally:
        del _running[work]


def current_work() -> str | None:
    """Return the progress of this process; None if no loop is running."""
    return "; ".join(map(str, list(_running.values()))) or None


def finished_share() -> float:
    """Return the finished share of the outermost running loop, 0 to 1; inner loops count as parts of its step."""
    share, step = 0.0, 1.0
    for work in list(_running.values()):
        if work.total:
            share += step * work.done / work.total
            step /= work.total
    return min(share, 1.0)
