"""Hostile and broken clients against the API as it runs in production: they are ended or refused, others are served
meanwhile, and nothing grows. `python -m bench.hostile` does the same at full scale and prints the figures.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy.orm import Session, sessionmaker

from bench.hostile import attacks, probed, running_job
from bench.hostile_attacks import Target
from bench.parts import api_process
from core.settings import Settings
from tests.serving import lent_app, served

SECONDS = 0.5
CLIENTS = 8
NIGHTLY_CLIENTS = 40
GROWTH_MEGABYTES = 60
"""What an attack may leave behind in a process of some 200 MB: allocators keep what they once had."""


@pytest.fixture
def target(settings: Settings, admin_key: str, tmp_path: Path) -> Iterator[tuple[Target, int]]:
    """A running API and its process."""
    impatient = settings.model_copy(update={"slow_client_seconds": SECONDS})
    log = tmp_path / "log"
    with api_process(impatient, log) as (pid, port):
        yield Target("127.0.0.1", port, admin_key), pid
    assert "Traceback" not in log.read_text(), log.read_text()[-5000:]


@pytest.mark.parametrize("clients", [CLIENTS, pytest.param(NIGHTLY_CLIENTS, marks=pytest.mark.nightly)])
def test_hostile_clients_are_ended_and_others_are_served(
    target: tuple[Target, int], sessions: sessionmaker[Session], team: str, clients: int
) -> None:
    where, pid = target
    job = running_job(sessions, team)
    chosen = attacks(where, sessions, job, SECONDS, clients / 200)
    for first in ("JSON 10 000 levels deep", "1 MiB of faults, with a key"):
        probed(where, pid, chosen[first])  # what is loaded, or the heap's room for one body, at first use is no growth
    came = {name: probed(where, pid, attack) for name, attack in chosen.items()}
    for name, (probe, figures) in came.items():
        assert not probe.failures, (name, probe.failures[:3])
        assert "still open" not in figures, (name, figures)
    told = {name: figures for name, (_, figures) in came.items()}
    assert set(told["bodies of 50 MB"]) <= {"413", "reset"} and "413" in told["bodies of 50 MB"], told
    assert told["JSON 10 000 levels deep"] == {"422": str(clients)}
    assert set(told["headers that drip"]) <= {"closed", "reset", "longest"}
    assert set(told["silence"]) <= {"closed", "reset", "longest"}
    assert set(told["bodies that drip"]) <= {"408", "reset", "longest"}, told
    assert set(told["a part that drips, refused"]) <= {"404", "reset", "longest"}
    assert told["watchers, one stalled"]["got every event"] == f"{clients} of {clients}"
    assert told["watchers, one stalled"]["stalled reader"].startswith("let go")
    before, after = came["bodies of 50 MB"][0].megabytes[0], came["watchers, one stalled"][0].megabytes[-1]
    assert after - before < GROWTH_MEGABYTES, f"{before:.0f} MB before, {after:.0f} MB after"


def test_a_body_that_stops_halfway_is_answered(settings: Settings, admin_key: str) -> None:
    impatient = settings.model_copy(update={"slow_client_seconds": SECONDS})
    with lent_app(impatient) as app, served(app) as url:
        address = urlsplit(url)
        where = Target(str(address.hostname), int(address.port or 0), admin_key)
        answer = _answer_to_half(where)
    assert answer.startswith(b"HTTP/1.1 408 ") and json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 408


def _answer_to_half(where: Target) -> bytes:
    head = where.head("POST", "/v1/jobs", "Content-Type: application/json", "Content-Length: 1000")
    with socket.create_connection((where.host, where.port), timeout=30) as client:
        client.sendall(head + b'{"model":')
        return b"".join(iter(lambda: client.recv(65536), b""))
