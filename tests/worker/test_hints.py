"""Hints in a real broker: few, however long nobody takes them and however many send them; and enough to wake. Hints and
leases, duty by duty.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from core.database import transaction
from core.service.jobs.broker import celery_app
from core.service.jobs.hints import Hints, hint_sender
from core.service.jobs.queue import HINTS_PER_QUEUE
from core.settings import Settings
from tests.worker.conftest import HintsSent, Queue, StartPart, dispatched, eventually, worker_state
from worker.dispatcher.clock import DutyRun, send_due_hints

WAITING = 2_000
HOUR = 3600.0
DISPATCHERS = 2
OVER = DISPATCHERS - 1
"""Two who look at the same moment send both: one more than enough for each further dispatcher."""


class Broker:
    """Messages in a broker, looked at behind the product's back."""

    def __init__(self, settings: Settings, url: str | None) -> None:
        self.settings = settings.model_copy(update={"broker_url": url})
        self._redis = None
        if url is not None:
            import redis

            self._redis = redis.Redis.from_url(url)

    def bytes_held(self) -> int:
        if self._redis is not None:
            return int(self._redis.memory_usage("default", samples=0) or 0)
        return sum(file.stat().st_size for file in self._messages())

    def length(self) -> int:
        if self._redis is not None:
            return int(self._redis.llen("default"))
        return len(self._messages())

    def lose_all(self) -> None:
        if self._redis is not None:
            self._redis.flushall()
        for file in self._messages():
            file.unlink()

    def _messages(self) -> list[Path]:
        return list((self.settings.home / "broker" / "messages").glob("*.default.msg"))


@pytest.fixture(params=["redis", "folder"])
def broker(request: pytest.FixtureRequest, settings: Settings) -> Broker:
    return Broker(settings, request.getfixturevalue("redis").url if request.param == "redis" else None)


@pytest.fixture
def dispatchers(broker: Broker) -> Iterator[list[Hints]]:
    """Yield as many connections to the broker, each of an app of its own."""
    apps = [celery_app(broker.settings) for _ in range(DISPATCHERS)]
    yield [Hints(app) for app in apps]
    for app in apps:
        app.close()


def multiply(jobs: Queue, job_id: str, number: int) -> None:
    """Queue more like that one, none of which was hinted at."""
    with transaction(jobs.sessions) as session:
        session.execute(text("UPDATE jobs SET dispatched_at = NULL"))
        session.execute(
            text("""
                INSERT INTO jobs
                SELECT (jsonb_populate_record(
                    jobs, jsonb_build_object('id', 'job_' || lpad(number::text, 26, '0'))
                )).* FROM jobs, generate_series(1, :number) AS number WHERE jobs.id = :job
            """),
            {"number": number, "job": job_id},
        )


def test_an_hour_without_a_worker_leaves_no_more_than_a_moment_does(
    broker: Broker, dispatchers: list[Hints], jobs: Queue, job_body: dict[str, Any]
) -> None:
    multiply(jobs, jobs.submit(job_body), WAITING - 1)
    turn = DutyRun(jobs.sessions, broker.settings)

    def round_of_all() -> None:
        with ThreadPoolExecutor(DISPATCHERS) as pool:
            for done in [pool.submit(send_due_hints, turn, hints) for hints in dispatchers]:
                done.result()

    round_of_all()
    begun = broker.length(), broker.bytes_held()
    assert HINTS_PER_QUEUE <= begun[0] <= HINTS_PER_QUEUE + OVER
    lengths, held = set(), set()
    for _ in range(int(HOUR / broker.settings.hint_stale_seconds)):
        with transaction(jobs.sessions) as session:  # by so much the clock goes on
            session.execute(
                text(
                    "UPDATE jobs SET dispatched_at = dispatched_at - interval '1 hour'"
                    " WHERE dispatched_at > now() - interval '10 minutes'"
                )
            )
        round_of_all()
        lengths.add(broker.length())
        held.add(broker.bytes_held())
    assert (lengths, held) == ({begun[0]}, {begun[1]})
    for number in range(200):  # as API processes do
        dispatchers[0].send(f"job_{number}", "default")
    assert (broker.length(), broker.bytes_held()) == begun

    broker.lose_all()
    round_of_all()
    assert HINTS_PER_QUEUE <= broker.length() <= HINTS_PER_QUEUE + OVER, "hints that were lost are sent again"


def test_a_worker_takes_old_hints_and_is_woken_by_the_next(
    broker: Broker, dispatchers: list[Hints], jobs: Queue, job_body: dict[str, Any], start_part: StartPart
) -> None:
    for number in range(5):
        dispatchers[0].send(f"job_{number}", "default")
    where = {} if broker.settings.broker_url is None else {"SECATEUR_BROKER_URL": broker.settings.broker_url}
    start_part("worker", stand_in={}, SECATEUR_WORKER_POLL_SECONDS="3600", **where)
    eventually(lambda: worker_state(jobs) == "idle" and broker.length() == 0)
    for _ in range(2):
        job_id = jobs.submit(job_body)
        dispatchers[0].send(job_id, "default")
        jobs.succeeded(job_id)


def test_a_message_appears_whole_or_not_at_all(settings: Settings) -> None:
    app = celery_app(settings)
    send = hint_sender(app)
    folder = Path(settings.home, "broker", "messages")
    for number in range(20):
        send(f"job_{number}", "default")
    for file in folder.iterdir():
        assert file.name.endswith(".default.msg") and json.loads(file.read_text())
    app.close()


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
