"""The lease on an attempt: how long it holds, and how soon the end that was asked for is seen."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs import queue, service
from tests.worker.conftest import Queue, eventually
from worker.supervisor.lease import Lease

HOUR = 3600.0


def claim(jobs: Queue, body: dict[str, Any]) -> str:
    job_id = jobs.submit(body)
    with transaction(jobs.sessions) as session:
        assert queue.claim(session, queue="default", worker_id="here", lease_seconds=HOUR)
    return job_id


def test_a_cancel_is_seen_long_before_the_lease_is_renewed(jobs: Queue, job_body: dict[str, Any]) -> None:
    job_id = claim(jobs, job_body)
    with Lease(jobs.sessions, job_id, 1, "here", lease_seconds=2 * HOUR, renew_seconds=HOUR) as lease:
        assert lease.state == "running"
        with transaction(jobs.sessions) as session:
            service.cancel(session, jobs.team, job_id)
        eventually(lambda: lease.state == "cancelling")


def test_a_lease_that_nobody_renewed_is_lost_when_its_time_is_over(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("worker.supervisor.lease.time", SimpleNamespace(monotonic=lambda: clock.now))
    lease = Lease(sessions, "job_1", 1, "here", lease_seconds=60, renew_seconds=15)
    clock.now += 59
    assert lease.state == "running"
    clock.now += 1
    assert lease.state == "lost"
    clock.now -= 1
    assert lease.state == "lost", "whoever lost it does not get it back"
