"""Room for whole models."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be taken on a device."""
    return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available)


@contextmanager
def memory_limited(room: int) -> Iterator[None]:
    """Let this process take no more than `room` bytes beyond what it holds: MemoryError, or the library's own, then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = psutil.Process().memory_info().data + room
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
