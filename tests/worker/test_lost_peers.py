"""A database or a Redis that vanishes without closing its connections is noticed, by the kernel's own probes."""

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import psycopg
import pytest
from limits.storage import RedisStorage
from sqlalchemy import make_url

from api.process.listener import EventListener
from api.process.rate_limits import Rates
from bench.parts import free_port
from core.database import session_factory
from core.service.jobs.broker import celery_app
from core.settings import Settings
from tests.production.programs import needed
from tests.worker.conftest import eventually
from worker.processes import spawn

EXPECTED = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}
"""Options of a socket whose peer is lost after five seconds."""


@pytest.fixture
def prompt(settings: Settings) -> Settings:
    return settings.model_copy(update={"peer_lost_seconds": 5})


def socket_file(settings: Settings) -> Path:
    """The database's."""
    return Path(str(make_url(settings.database_url or "").query["host"])) / ".s.PGSQL.5432"


def over_tcp(settings: Settings, address: str, port: int) -> Settings:
    url = make_url(settings.database_url or "").set(host=address, port=port, query={})
    return settings.model_copy(update={"database_url": url.render_as_string(hide_password=False)})


@contextmanager
def forwarded(socket_path: Path) -> Iterator[int]:
    """Yield a TCP port that leads to a server's socket file while this lasts."""

    class Forward(StreamRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as inner:
                inner.connect(str(socket_path))
                ends = {self.request: inner, inner: self.request}
                while True:
                    for ready in select.select([*ends], [], [])[0]:
                        if not (data := ready.recv(65536)):
                            return
                        ends[ready].sendall(data)

    with ThreadingTCPServer(("127.0.0.1", 0), Forward) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def options_of(descriptor: int) -> dict[str, int]:
    with socket.socket(fileno=os.dup(descriptor)) as held:
        levels = {name: socket.SOL_SOCKET if name.startswith("SO") else socket.IPPROTO_TCP for name in EXPECTED}
        return {name: held.getsockopt(level, getattr(socket, name)) for name, level in levels.items()}


def test_every_connection_to_the_database_is_probed(prompt: Settings) -> None:
    with forwarded(socket_file(prompt)) as port:
        settings = over_tcp(prompt, "127.0.0.1", port)
        sessions = session_factory(settings)
        with sessions() as session:
            driver = session.connection().connection.driver_connection
            assert driver is not None and options_of(driver.fileno()) == EXPECTED
        sessions.kw["bind"].dispose()
        with psycopg.connect(EventListener(settings).conninfo) as listening:
            assert options_of(listening.fileno()) == EXPECTED


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    server = spawn([needed("redis-server"), "--port", str(port), "--save", ""], name="redis", folder=tmp_path)

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(answers)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.end(5)


def test_every_connection_to_redis_is_probed(prompt: Settings, redis_url: str) -> None:
    settings = prompt.model_copy(update={"broker_url": redis_url})

    def options(client: Any) -> dict[str, int]:
        connection = client.connection_pool.get_connection()
        try:
            return options_of(connection._sock.fileno())
        finally:
            client.connection_pool.release(connection)

    with celery_app(settings).connection_for_write() as broker:
        assert options(broker.default_channel.client) == EXPECTED
    storage = Rates(settings).storage
    assert isinstance(storage, RedisStorage)
    assert options(storage.storage) == EXPECTED
