"""A database or a Redis that vanishes without closing its connections is noticed, by the kernel's own probes."""

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from kombu import Connection as BrokerConnection
from limits.storage import RedisStorage
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from api.rates import Rates
from core.database import session_factory
from core.jobs.broker import celery_app
from core.settings import Settings
from tests.production.conftest import needed
from tests.worker.conftest import eventually
from tests.worker.lost_peers import PORT, Peer, peer
from tests.worker.test_serve import free_port
from worker.processes import spawn

EXPECTED = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}
"""With five seconds until a peer is lost."""


@pytest.fixture
def prompt(settings: Settings) -> Settings:
    return settings.model_copy(update={"peer_lost_seconds": 5})


def options_of(descriptor: int) -> dict[str, int]:
    with socket.socket(fileno=socket.dup(descriptor)) as held:
        return {
            name: held.getsockopt(
                socket.SOL_SOCKET if name.startswith("SO") else socket.IPPROTO_TCP, getattr(socket, name)
            )
            for name in EXPECTED
        }
