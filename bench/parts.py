"""Parts of an installation that benches and tests start: programs, free ports, an API alone, and waiting for them."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir
from typing import TypeVar

import httpx
import redis

from core.settings import Settings
from worker.processes import spawn

Answer = TypeVar("Answer")
_FIRST_PORT = 10_000


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
    """Return a port of loopback that nobody listens at, and nobody else is given meanwhile: each process of this
    machine that asks is told the next one below those that the kernel gives.
    """
    kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with open(Path(gettempdir(), f"secateur-port-{os.geteuid()}"), "a+") as last:
        fcntl.flock(last, fcntl.LOCK_EX)
        last.seek(0)
        port = int(last.read() or _FIRST_PORT)
        while True:
            port = port + 1 if port + 1 < kernels else _FIRST_PORT
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                last.truncate(0)
                last.write(str(port))
                return port


def without_settings() -> dict[str, str]:
    """Return this process's environment but for settings of the service."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}


@contextmanager
def api_process(settings: Settings, log: Path) -> Iterator[tuple[int, int]]:
    """Run the API as it runs in production, without a limit of requests; give its process id and port."""
    port = free_port()
    names = ("home", "database_url", "secret_key", "slow_client_seconds")
    given = {f"SECATEUR_{name.upper()}": str(getattr(settings, name)) for name in names}
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.start:create_app", "--port", str(port)]
    command += ["--http", "api.slow_clients:BoundedConnection", "--log-level", "warning", "--no-access-log"]
    environment = without_settings() | given | {"SECATEUR_REQUESTS_PER_MINUTE": "0"}
    with log.open("wb") as output:
        process = spawn(command, name="api", stdout=output, stderr=subprocess.STDOUT, environment=environment)
    try:
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5), 60, "the API")
        yield process.pid, port
    finally:
        process.end(grace_seconds=30)
