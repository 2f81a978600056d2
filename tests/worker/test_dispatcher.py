"""Hints and leases, duty by duty."""

from typing import Any

import pytest
from sqlalchemy import text

from core.database import transaction
from core.settings import Settings
from tests.worker.conftest import HintsSent, Queue, dispatched
from worker.dispatcher.clock import DutyRun, send_due_hints


def test_a_hint_that_was_lost_is_sent_again_once_it_is_stale(
    jobs: Queue, job_body: dict[str, Any], settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    assert dispatched(jobs, settings) == [], "the first hint may still come"
    with transaction(jobs.sessions) as session:
        session.execute(text("UPDATE jobs SET dispatched_at = now() - interval '1 hour'"))
    assert dispatched(jobs, settings) == [(job_id, "default")]
    assert dispatched(jobs, settings) == []


class NoBroker(HintsSent):
    """A broker that is away."""

    def count_waiting(self, queue: str) -> int:
        raise ConnectionError("no broker")


def test_a_broker_that_is_away_gets_its_hints_as_soon_as_it_is_back(
    jobs: Queue, job_body: dict[str, Any], settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    with transaction(jobs.sessions) as session:
        session.execute(text("UPDATE jobs SET dispatched_at = NULL"))
    with pytest.raises(ConnectionError):
        send_due_hints(DutyRun(jobs.sessions, settings), NoBroker())
    assert dispatched(jobs, settings) == [(job_id, "default")]


def test_an_expired_lease_returns_the_job_with_a_hint(
    jobs: Queue, job_body: dict[str, Any], settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    with transaction(jobs.sessions) as session:
        session.execute(
            text("UPDATE jobs SET status = 'running', attempt = 1, lease_expires_at = now() - interval '1 second'")
        )
        session.execute(text("UPDATE teams SET running = 1"))
    assert dispatched(jobs, settings) == [(job_id, "default")] and jobs.job(job_id).status == "queued"
    assert jobs.events(job_id)[-1].data["reason"] == "lease_expired"
