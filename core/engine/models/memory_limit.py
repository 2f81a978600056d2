"""Limit of this process's memory, so that what is too much is an error here and no kill by the kernel.

The kernel counts private pages that may be written. It also counts pages of files that are mapped in that way, even if
none of them is changed.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_KEPT_BACK = 1 / 16
"""Share of the free memory that is left to others, so that the error comes before the kernel acts."""


def memory_left() -> int:
    """Return the bytes of main memory that are free for this process: the machine's, within the process's limit."""
    free = int(psutil.virtual_memory().available)
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return free if soft == resource.RLIM_INFINITY else max(0, min(free, soft - psutil.Process().memory_info().data))


def limit_memory(free: int) -> None:
    """Limit this process to nearly `free` more bytes; beyond that, MemoryError or the library's own error is raised."""
    _set_limit(psutil.Process().memory_info().data + max(0, int(free * (1 - _KEPT_BACK))))


@contextmanager
def memory_limited(room: int) -> Iterator[None]:
    """Limit this process, inside the context, to `room` more bytes, as `limit_memory` does."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    _set_limit(psutil.Process().memory_info().data + room)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def weights_mapped(folder: Path) -> Iterator[None]:
    """Raise this process's limit, if it has one, by a folder's weights while a library maps all of their files.

    What was only read of them, the kernel takes back where memory is short.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if before[0] != resource.RLIM_INFINITY:
        _set_limit(before[0] + sum(file.stat().st_size for file in folder.glob("*.safetensors")))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _set_limit(most: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
