"""What fleets of processes are started with: programs, free ports, and waiting until a part answers."""

import shutil
import socket
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import redis

Answer = TypeVar("Answer")


def installed(name: str) -> str:
    """Return where a program lies."""
    program = shutil.which(name)
    assert program is not None, f"{name} is not installed"
    return program


def until(look: Callable[[], Answer], seconds: float, what: str = "") -> Answer:
    """Return the first answer of `look` that is something; what it raises meanwhile counts as nothing.

    Raises TimeoutError, saying `what` did not come.
    """
    deadline = time.monotonic() + seconds
    error: Exception | None = None
    while True:
        try:
            if found := look():
                return found
        except (OSError, httpx.HTTPError, redis.RedisError) as raised:
            error = raised
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s".removeprefix(": ")) from error
        time.sleep(0.05)


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
