"""One round of the dispatcher."""

from typing import Any

import pytest
from sqlalchemy import text

from core.database import transaction
from core.settings import Settings
from tests.worker.conftest import Queue
from worker.dispatcher import dispatch

Hint = tuple[str, str]


def test_a_hint_that_was_lost_is_sent_again_once_it_is_stale(
    jobs: Queue, job_body: dict[str, Any], settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    hints: list[Hint] = []
    assert dispatch(jobs.sessions, settings, lambda *hint: hints.append(hint)) == 0, "the first hint may still come"
    with transaction(jobs.sessions) as session:
        session.execute(text("UPDATE jobs SET dispatched_at = now() - interval '1 hour'"))
    assert dispatch(jobs.sessions, settings, lambda *hint: hints.append(hint)) == 1
    assert dispatch(jobs.sessions, settings, lambda *hint: hints.append(hint)) == 0
    assert hints == [(job_id, "default")]


def test_a_broker_that_is_down_loses_nothing(jobs: Queue, job_body: dict[str, Any], settings: Settings) -> None:
    jobs.submit(job_body)
    with transaction(jobs.sessions) as session:
        session.execute(text("UPDATE jobs SET dispatched_at = NULL"))

    def fail(job_id: str, queue: str) -> None:
        raise ConnectionError("no broker")

    with pytest.raises(ConnectionError):
        dispatch(jobs.sessions, settings, fail)
    hints: list[Hint] = []
    at_once = settings.model_copy(update={"hint_stale_seconds": 0.0})
    assert dispatch(jobs.sessions, at_once, lambda *hint: hints.append(hint)) == 1


def test_an_expired_lease_returns_the_job_with_a_hint(
    jobs: Queue, job_body: dict[str, Any], settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    with transaction(jobs.sessions) as session:
        session.execute(
            text("UPDATE jobs SET status = 'running', attempt = 1, lease_expires_at = now() - interval '1 second'")
        )
        session.execute(text("UPDATE teams SET running = 1"))
    hints: list[Hint] = []
    dispatch(jobs.sessions, settings, lambda *hint: hints.append(hint))
    assert hints == [(job_id, "default")] and jobs.job(job_id).status == "queued"
    assert jobs.events(job_id)[-1].data["reason"] == "lease_expired"
