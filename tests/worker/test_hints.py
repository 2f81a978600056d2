"""Hints in a real broker: few, however long nobody takes them and however many send them; and enough to wake. Hints and
leases, duty by duty.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from core.database import transaction
from core.service.jobs.broker import celery_app
from core.service.jobs.hints import Hints
from core.service.jobs.queue import HINTS_PER_QUEUE
from core.settings import Settings
from tests.worker.conftest import HintsSent, Queue, StartPart, dispatched, eventually, worker_state
from worker.dispatcher.clock import DutyRun, send_due_hints

WAITING = 2_000
MOST = HINTS_PER_QUEUE + 1
"""Two dispatchers that look at the same moment send both: one more than enough."""


@pytest.fixture(params=["redis", "folder"])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """With each broker in turn."""
    url = request.getfixturevalue("redis").url if request.param == "redis" else None
    return settings.model_copy(update={"broker_url": url})


@pytest.fixture
def dispatchers(settings: Settings) -> Iterator[list[Hints]]:
    """Yield two connections to the broker, each of an app of its own."""
    apps = [celery_app(settings) for _ in range(2)]
    yield [Hints(app) for app in apps]
    for app in apps:
        app.close()


def multiply(jobs: Queue, job_id: str) -> None:
    """Queue many more like that one, none of which was hinted at."""
    with transaction(jobs.sessions) as session:
        session.execute(text("UPDATE jobs SET dispatched_at = NULL"))
        session.execute(
            text("""
                INSERT INTO jobs
                SELECT (jsonb_populate_record(
                    jobs, jsonb_build_object('id', 'job_' || lpad(number::text, 26, '0'))
                )).* FROM jobs, generate_series(2, :number) AS number WHERE jobs.id = :job
            """),
            {"number": WAITING, "job": job_id},
        )


def test_an_hour_without_a_worker_leaves_no_more_than_a_moment_does(
    dispatchers: list[Hints], jobs: Queue, job_body: dict[str, Any], settings: Settings
) -> None:
    multiply(jobs, jobs.submit(job_body))
    turn = DutyRun(jobs.sessions, settings)
    lengths = []
    for _ in range(20):
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(send_due_hints, turn, hints) for hints in dispatchers]:
                done.result()
        lengths.append(dispatchers[0].count_waiting("default"))
        with transaction(jobs.sessions) as session:  # all that were sent are stale again
            session.execute(text("UPDATE jobs SET dispatched_at = dispatched_at - interval '1 hour'"))
    for number in range(50):  # as API processes do
        dispatchers[0].send(f"job_{number}", "default")
    lengths.append(dispatchers[1].count_waiting("default"))
    assert HINTS_PER_QUEUE <= lengths[0] <= MOST and set(lengths) == {lengths[0]}


def test_a_worker_takes_old_hints_and_is_woken_by_the_next(
    dispatchers: list[Hints], jobs: Queue, job_body: dict[str, Any], settings: Settings, start_part: StartPart
) -> None:
    for number in range(5):
        dispatchers[0].send(f"job_{number}", "default")
    where = {} if settings.broker_url is None else {"SECATEUR_BROKER_URL": settings.broker_url}
    start_part("worker", stand_in={}, SECATEUR_WORKER_POLL_SECONDS="3600", **where)
    eventually(lambda: worker_state(jobs) == "idle" and dispatchers[1].count_waiting("default") == 0)
    for _ in range(2):
        job_id = jobs.submit(job_body)
        dispatchers[0].send(job_id, "default")
        jobs.succeeded(job_id)


class NoBroker(HintsSent):
    """A broker that is away."""

    def count_waiting(self, queue: str) -> int:
        raise ConnectionError("no broker")


@pytest.mark.parametrize("settings", ["folder"], indirect=True)
def test_a_broker_that_is_away_gets_its_hints_as_soon_as_it_is_back(
    jobs: Queue, job_body: dict[str, Any], settings: Settings
) -> None:
    job_id = jobs.submit(job_body)
    assert dispatched(jobs, settings) == [], "the first hint may still come"
    with transaction(jobs.sessions) as session:
        session.execute(text("UPDATE jobs SET dispatched_at = NULL"))
    with pytest.raises(ConnectionError):
        send_due_hints(DutyRun(jobs.sessions, settings), NoBroker())
    assert [dispatched(jobs, settings) for _ in range(2)] == [[(job_id, "default")], []]


@pytest.mark.parametrize("settings", ["folder"], indirect=True)
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
