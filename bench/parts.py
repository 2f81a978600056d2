"""What fleets of processes are started with: programs, free ports, and waiting until a part answers."""

import shutil
import socket
import time
from collections.abc import Callable

import httpx
import redis


def installed(name: str) -> str:
    """Where a program lies."""
    program = shutil.which(name)
    assert program is not None, f"{name} is not installed"
    return program


def until(look: Callable[[], object], seconds: float) -> None:
    """Wait until `look` gives something true; what it raises meanwhile counts as nothing."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if look():
                return
        except (OSError, httpx.HTTPError, redis.RedisError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s") from error
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
