"""Device that models run on, its free memory, and limits of it."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


def default_device() -> torch.device:
    """Return the first CUDA device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a device."""
    return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available)


@contextmanager
def memory_limited(room: int) -> Iterator[None]:
    """Limit this process, inside the context, to `room` more bytes.

    Beyond, MemoryError or the library's own error is raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = psutil.Process().memory_info().data + room
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
