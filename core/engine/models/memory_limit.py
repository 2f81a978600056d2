"""Limit of this process's memory."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def memory_limited(room: int) -> Iterator[None]:
    """Limit this process, inside the context, to `room` more bytes.

    Beyond that, MemoryError or the library's own error is raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = psutil.Process().memory_info().data + room
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
