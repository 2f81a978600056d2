"""A Redis of a test's own, that can be killed and comes back at the same address, empty."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from bench.parts import free_port
from worker.processes import ChildProcess, spawn


class RedisServer:
    """Started with `start`; `client` asks it behind the product's back."""

    def __init__(self, program: str, folder: Path) -> None:
        self._port = free_port()
        self._program = program
        self._folder = folder
        self._process: ChildProcess | None = None
        self.client = redis.Redis(port=self._port, socket_connect_timeout=60)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Return once it answers."""
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]
        self._process = spawn([self._program, *options], name="redis", folder=self._folder, stdout=subprocess.DEVNULL)
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                assert self._process.is_running(), "Redis ended while it started"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


@contextmanager
def redis_running(folder: Path) -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(program, folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        server.client.close()
