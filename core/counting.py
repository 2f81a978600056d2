"""Progress of long loops: the loops count themselves, and the process around them reads the count.

A loop does not know who reads its count. A process that reports its current work calls `current_work` at intervals.
Nested loops are reported together, the outermost first.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

_running: dict[object, str] = {}
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
        _running[loop] = f"{what}: {done:,} of {total:,}"

    count(0)
    try:
        yield count
    finally:
        del _running[loop]


@contextmanager
def working(what: str) -> Iterator[None]:
    """Report `what` as the process's current work while the body runs, without a count."""
    work = object()
    _running[work] = what
    try:
        yield
    finally:
        del _running[work]


def current_work() -> str | None:
    """Return the progress of this process; None if no loop is running."""
    return "; ".join(list(_running.values())) or None
