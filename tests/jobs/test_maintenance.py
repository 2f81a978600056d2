"""Retention, and that what is done all the time costs the same however many rows there are."""

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from bench.queue_scale_duties import measure_duties
from bench.queue_scale_plans import explained, nodes_of
from bench.queue_scale_tables import fill, fill_tables, without_indexes
from core.database import new_id, seconds_from_now, transaction
from core.service.jobs.admission import Room, needs_columns
from core.service.jobs.queue import (
    claim,
    expire_leases,
    finish_failed,
    heartbeat,
    hints_due,
    remove_old_events,
)
from core.service.jobs.quotas import get_team
from core.service.jobs.tables import AttemptRow, JobEventRow, JobRow
from core.service.webhooks import delivery_loop
from core.settings import Settings
from secateur_wire.errors import OutOfMemory
from tests.jobs.conftest import NewJob

Sessions = sessionmaker[Session]
DAY = 24 * 3600
WAITING = 10_000
ROWS = 2000


def ended(sessions: Sessions, new_job: NewJob, days_ago: float) -> str:
    job = new_job()
    with transaction(sessions) as session:
        claimed = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
        assert claimed is not None and claimed.job_id == job
        finish_failed(session, job, 1, OutOfMemory("").problem())
        session.execute(update(JobRow).where(JobRow.id == job).values(finished_at=seconds_from_now(-days_ago * DAY)))
    return job


def events(sessions: Sessions, job: str) -> list[int]:
    with transaction(sessions) as session:
        rows = session.scalars(select(JobEventRow.sequence).where(JobEventRow.job_id == job))
        return sorted(rows)


def remove(sessions: Sessions) -> int:
    with transaction(sessions) as session:
        return remove_old_events(session, 90)


def test_events_of_jobs_that_ended_long_ago_are_removed_once(sessions: Sessions, new_job: NewJob) -> None:
    old, recent = ended(sessions, new_job, 91), ended(sessions, new_job, 89)
    waiting = new_job()
    assert [remove(sessions), remove(sessions)] == [1, 0]
    assert [len(events(sessions, job)) for job in (old, recent, waiting)] == [0, 3, 1]
    with transaction(sessions) as session:
        assert session.scalars(select(AttemptRow.outcome).where(AttemptRow.job_id == old)).one() == "failed"


@pytest.fixture
def long_queue(sessions: Sessions, new_job: NewJob, other_team: str) -> None:
    """As many rows wait, and as many have ended."""
    new_job(), new_job(other_team)
    columns = "team_id, attempts_allowed, body, sources, model, model_revision, method, queue, priority, metadata"
    many = f"""
        INSERT INTO jobs (id, created_at, status, finished_at, {columns})
        SELECT id || number, created_at + make_interval(secs => number), made.status, made.finished_at, {columns}
        FROM jobs CROSS JOIN generate_series(1, CAST(:each AS int)) AS number
        JOIN (VALUES (0, 'failed', now()), (1, 'queued', NULL)) AS made (rest, status, finished_at)
            ON rest = number % 2
    """
    with transaction(sessions) as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))  # filling a table is no request
        session.execute(text(many), {"each": WAITING})
    with sessions.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))


@pytest.mark.usefixtures("long_queue")
def test_neither_claim_nor_hints_read_the_queue_from_end_to_end(sessions: Sessions, team: str) -> None:
    calls = {
        "claim": lambda session: claim(session, queue="default", worker_id="worker_1", lease_seconds=60),
        "hints": lambda session: hints_due(session, 30),
        "leases": expire_leases,
        "retention": lambda session: remove_old_events(session, 90),
    }
    for name, call in calls.items():
        with transaction(sessions) as session:
            plans = explained(session, call)
        for node in [node for _, plan in plans for node in nodes_of(plan["Plan"])]:
            assert (node["Node Type"], node.get("Relation Name")) != ("Seq Scan", "jobs"), name
            rows = node["Actual Rows"] * node["Actual Loops"]
            assert rows <= 500, (name, node["Node Type"], rows)
    with transaction(sessions) as session:
        assert get_team(session, team).usage.queued >= WAITING / 2
        assert session.scalar(select(func.count()).select_from(JobRow)) == 2 * WAITING + 2


@pytest.mark.usefixtures("long_queue")
def test_a_claim_does_not_read_what_is_too_large_for_its_worker(sessions: Sessions) -> None:
    """All but two are, they would go first, and there is a worker for them."""
    with transaction(sessions) as session:
        for worker, size in (("small", 16), ("large", 80)):
            memory = size * 2**30
            heartbeat(session, worker, queue="default", device="cuda", hostname="b", pid=1, memory_bytes=memory)
        needs = needs_columns(Room(None, 40 * 2**30, None))
        copies = func.length(JobRow.id) > len(new_id("job"))
        session.execute(update(JobRow).where(copies).values(priority=5, **needs))
    with sessions.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
    for worker, is_small in (("small", True), ("large", False)):
        with transaction(sessions) as session:
            plans = explained(session, lambda s, by=worker: claim(s, queue="default", worker_id=by, lease_seconds=60))
            size = session.scalars(select(JobRow.size).where(JobRow.worker_id == worker)).one()
        assert (size == 0) == is_small
        for node in [node for _, plan in plans for node in nodes_of(plan["Plan"])]:
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            assert rows <= 500, (worker, node["Node Type"], rows)


def test_no_duty_reads_what_it_has_nothing_to_do_with(
    sessions: sessionmaker[Session], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_loop, "IDLE_LOOKS", 0)
    monkeypatch.setattr(delivery_loop, "LOOK_SECONDS", 0.01)
    with without_indexes(sessions):
        teams = fill(sessions, settings, teams=3, finished=ROWS, queued=10)
        fill_tables(sessions, teams, ROWS)
    costs = measure_duties(sessions, settings, teams)
    read = {name: plan for name, cost in costs.items() for plan in cost.plans if plan.scanned or plan.rows > ROWS / 4}
    assert not read
    assert {"webhooks", "retention", "old events", "silent workers", "orphans"} <= costs.keys()
