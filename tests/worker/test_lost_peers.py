"""A database or a Redis that vanishes without closing its connections is noticed, by the kernel's own probes."""

import os
import socket
from typing import Any

import psycopg
import pytest
from limits.storage import RedisStorage

from api.process.listener import EventListener
from api.process.rate_limits import Rates
from core.database import session_factory
from core.service.jobs.broker import celery_app
from core.settings import Settings
from tests.worker.redis_server import RedisServer

EXPECTED = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}
"""Options of a socket whose peer is lost after five seconds."""
OF_LIBPQ = {
    "keepalives": "1", "keepalives_idle": "2", "keepalives_interval": "1", "keepalives_count": "3",
    "tcp_user_timeout": "5000",
}  # fmt: skip


@pytest.fixture
def prompt(settings: Settings) -> Settings:
    return settings.model_copy(update={"peer_lost_seconds": 5})


def test_every_connection_to_the_database_is_probed(prompt: Settings) -> None:
    sessions = session_factory(prompt)
    with sessions() as session, psycopg.connect(EventListener(prompt).conninfo) as listening:
        driver = session.connection().connection.driver_connection
        assert driver is not None
        for connection in (driver, listening):
            told = connection.info.get_parameters()
            assert {name: told.get(name, "1") for name in OF_LIBPQ} == OF_LIBPQ, "libpq probes TCP so"
    sessions.kw["bind"].dispose()


def test_every_connection_to_redis_is_probed(prompt: Settings, redis: RedisServer) -> None:
    settings = prompt.model_copy(update={"broker_url": redis.url})

    def options(client: Any) -> dict[str, int]:
        connection = client.connection_pool.get_connection()
        try:
            with socket.socket(fileno=os.dup(connection._sock.fileno())) as held:
                levels = {name: socket.SOL_SOCKET if name.startswith("SO") else socket.IPPROTO_TCP for name in EXPECTED}
                return {name: held.getsockopt(level, getattr(socket, name)) for name, level in levels.items()}
        finally:
            client.connection_pool.release(connection)

    with celery_app(settings).connection_for_write() as broker:
        assert options(broker.default_channel.client) == EXPECTED
    storage = Rates(settings).storage
    assert isinstance(storage, RedisStorage)
    assert options(storage.storage) == EXPECTED
