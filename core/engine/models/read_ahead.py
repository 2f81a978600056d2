"""Reading ahead: a thread reads the next of several things while the program works on one."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")


def read_ahead(read: Callable[[Item], Content], items: Sequence[Item]) -> Iterator[Content]:
    """Yield what `read` returns for each item, the next of which one thread reads before it is asked for.

    An error of `read` is raised when the turn comes to its item. No more than one is read ahead, and the thread has
    ended when the generator has, however that ends.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader") as thread:
        coming = [thread.submit(read, each) for each in items[:1]]
        for place in range(len(items)):
            content = coming.pop().result()
            coming += [thread.submit(read, each) for each in items[place + 1 : place + 2]]
            yield content
