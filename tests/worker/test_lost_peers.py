"""A database or a Redis that vanishes without closing its connections is noticed, by the kernel's own probes."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from limits.storage import RedisStorage
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from api.process.listener import EventListener
from api.process.rate_limits import Rates
from bench.parts import free_port
from core.database import session_factory, transient_reason
from core.service.jobs.broker import celery_app
from core.settings import Settings
from tests.production.programs import needed
from tests.worker.conftest import eventually
from tests.worker.lost_peers import PORT, forwarded, peer
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


def options_of(descriptor: int) -> dict[str, int]:
    with socket.socket(fileno=os.dup(descriptor)) as held:
        levels = {name: socket.SOL_SOCKET if name.startswith("SO") else socket.IPPROTO_TCP for name in EXPECTED}
        return {name: held.getsockopt(level, getattr(socket, name)) for name, level in levels.items()}


def test_every_connection_to_the_database_is_probed(prompt: Settings) -> None:
    port = free_port()
    with forwarded("127.0.0.1", port, socket_file(prompt)):
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


def test_a_database_that_vanishes_is_noticed_by_whoever_waits_for_it(prompt: Settings) -> None:
    """The options of the sockets, tested above, have to do where there is no network of its own to cut."""
    with peer(socket_file(prompt)) as vanishing:
        if vanishing is None:
            return
        sessions = session_factory(over_tcp(prompt, vanishing.address, PORT))
        with sessions() as session, ThreadPoolExecutor(1) as pool:
            session.execute(text("SELECT 1"))
            waiting = pool.submit(session.execute, text("SELECT pg_sleep(25)"))
            vanishing.cut()
            with pytest.raises(DBAPIError) as lost:
                waiting.result(timeout=60)
        assert transient_reason(lost.value) == "the database cannot be reached right now"
        sessions.kw["bind"].dispose()
