"""What a team may use, and what it uses."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import (
    claim,
    finish_failed,
    finish_succeeded,
    release,
    request_cancel,
    request_retry,
)
from core.service.jobs.quotas import get_team, require_room_in_queue
from core.service.jobs.tables import ArtifactFileRow, AttemptRow, JobReportRow, JobRow
from core.service.teams.quotas import release_stored, reserve_stored
from core.service.teams.tables import TeamRow
from core.storage import StoredFile
from secateur_wire.errors import GateMissed, OutOfMemory, QuotaExceeded
from tests.job_rows import job_row
from tests.jobs.conftest import NewJob
from tests.worker.conftest import eventually

Sessions = sessionmaker[Session]
HUNDRED = [StoredFile("model.safetensors", 60, "0"), StoredFile("secateur.json", 40, "0")]


def take(sessions: Sessions, queue: str = "default") -> str | None:
    with transaction(sessions) as session:
        claimed = claim(session, queue=queue, worker_id="worker_1", lease_seconds=60)
        return None if claimed is None else claimed.job_id


def set_team(sessions: Sessions, team: str, **values: object) -> None:
    with transaction(sessions) as session:
        session.execute(update(TeamRow).where(TeamRow.id == team).values(**values))


def team_row(sessions: Sessions, team: str) -> TeamRow:
    with transaction(sessions) as session:
        return session.scalars(select(TeamRow).where(TeamRow.id == team)).one()


def test_jobs_are_shared_by_weight(sessions: Sessions, new_job: NewJob, team: str, other_team: str) -> None:
    set_team(sessions, other_team, weight=3)
    teams = {new_job(each): each for _ in range(8) for each in (team, other_team)}
    taken = [teams[take(sessions) or ""] for _ in range(8)]
    assert (taken.count(team), taken.count(other_team)) == (2, 6)


_LOOKS_LATER = """
    CREATE TEMPORARY VIEW workers AS
    SELECT * FROM public.workers WHERE (SELECT pg_advisory_xact_lock(1)) IS NOT NULL
"""
"""Before the tables: a claim of this session's waits where it looks for itself among the workers, for whoever holds the
lock. What it sees of all tables is as old as its beginning."""


def test_a_claim_looks_at_the_quota_again_once_the_teams_row_is_its_own(
    sessions: Sessions, new_job: NewJob, team: str
) -> None:
    """Another queue's claim fills the quota, and is done, between what this one read of the team and its lock."""
    new_job()
    large = new_job(queue="large")
    set_team(sessions, team, max_running=1)

    def take_late() -> str | None:
        with transaction(sessions) as session:
            session.execute(text(_LOOKS_LATER))
            claimed = claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
            session.execute(text("DROP VIEW pg_temp.workers"))
            return None if claimed is None else claimed.job_id

    with ThreadPoolExecutor(1) as pool:
        with transaction(sessions) as session:
            session.execute(text("SELECT pg_advisory_xact_lock(1)"))
            late = pool.submit(take_late)
            waits = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            eventually(lambda: late.done() or session.scalar(waits))
            assert take(sessions, "large") == large
        assert late.result(60) is None
    assert team_row(sessions, team).running == 1


def test_the_number_of_waiting_jobs_is_exact_under_concurrency(sessions: Sessions, new_job: NewJob, team: str) -> None:
    set_team(sessions, team, max_queued=3)
    start = threading.Barrier(6)

    def queue_one(_: int) -> bool:
        start.wait()
        try:
            with transaction(sessions) as session:
                require_room_in_queue(session, team, adding=1)
                session.add(job_row(team))
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(queue_one, range(6))) == 3
    with transaction(sessions) as session, pytest.raises(QuotaExceeded, match="3 waiting jobs") as refused:
        require_room_in_queue(session, team, adding=1)
    assert refused.value.retry_after > 0


def test_device_time_counts_by_the_month_and_stops_the_team_when_used_up(
    sessions: Sessions, new_job: NewJob, team: str
) -> None:
    set_team(sessions, team, max_device_seconds=100)
    first, second = new_job(), new_job()
    assert take(sessions) == first
    with transaction(sessions) as session:
        began = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, 90)
        session.execute(update(AttemptRow).values(started_at=began))
        finish_failed(session, first, 1, OutOfMemory("").problem())
        require_room_in_queue(session, team, adding=1)
        assert 90 <= get_team(session, team).usage.device_seconds < 100
    assert take(sessions) == second
    with transaction(sessions) as session:
        session.execute(update(AttemptRow).where(AttemptRow.job_id == second).values(started_at=began))
        release(session, second, 1)
        with pytest.raises(QuotaExceeded, match="device hours") as refused:
            require_room_in_queue(session, team, adding=1)
    now = datetime.now(UTC)
    next_month = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    assert refused.value.retry_after == pytest.approx((next_month - now).total_seconds(), abs=60)
    assert take(sessions) is None
    set_team(sessions, team, device_month=datetime(2020, 1, 1, tzinfo=UTC))
    with transaction(sessions) as session:
        require_room_in_queue(session, team, adding=1)
        assert get_team(session, team).usage.device_seconds == 0
    assert take(sessions) == second
    with transaction(sessions) as session:
        release(session, second, 2)
    assert team_row(sessions, team).device_seconds < 5


def test_a_retry_needs_room_as_well(sessions: Sessions, new_job: NewJob, team: str) -> None:
    job = new_job()
    with transaction(sessions) as session:
        request_cancel(session, job)
    new_job()
    set_team(sessions, team, max_queued=1)
    with pytest.raises(QuotaExceeded):
        _retry_within_quota(sessions, team, job)
    with transaction(sessions) as session:
        assert session.scalars(select(JobRow.status).where(JobRow.id == job)).one() == "cancelled"


def _retry_within_quota(sessions: Sessions, team: str, job: str) -> None:
    with transaction(sessions) as session:
        assert request_retry(session, job, 3).changed
        require_room_in_queue(session, team, adding=0)


def test_stored_bytes_are_reserved_and_released(sessions: Sessions, team: str) -> None:
    set_team(sessions, team, max_stored_bytes=100)
    with transaction(sessions) as session:
        reserve_stored(session, team, 60)
        with pytest.raises(QuotaExceeded, match="41 bytes more do not fit: the team stores 60 of 100"):
            reserve_stored(session, team, 41)
        reserve_stored(session, team, 40)
        release_stored(session, team, 30)
        assert get_team(session, team).usage.stored_bytes == 70
        release_stored(session, team, 1000)
        assert get_team(session, team).usage.stored_bytes == 0


def test_a_missed_gate_keeps_its_artifact_where_there_is_room_and_the_next_one_takes_its_place(
    sessions: Sessions, new_job: NewJob, team: str
) -> None:
    missed = GateMissed("too far").problem()
    set_team(sessions, team, max_stored_bytes=150)
    jobs = [new_job(), new_job()]
    for job in jobs:
        take(sessions)
        with transaction(sessions) as session:
            assert finish_failed(session, job, 1, missed, report={}, files=HUNDRED) == "failed"
    with transaction(sessions) as session:
        assert {row.job_id for row in session.scalars(select(ArtifactFileRow))} == {jobs[0]}
        assert len(session.scalars(select(JobReportRow)).all()) == 2
        assert get_team(session, team).usage.stored_bytes == 100
        request_retry(session, jobs[0], 3)
        assert get_team(session, team).usage.stored_bytes == 100
    take(sessions)
    with transaction(sessions) as session:
        larger = [*HUNDRED, StoredFile("more", 51, "00")]
        assert finish_failed(session, jobs[0], 2, missed, report={"b": 2}, files=larger) == "failed"
        assert {row.attempt for row in session.scalars(select(ArtifactFileRow))} == {1}, "151 bytes do not fit in 150"
        assert get_team(session, team).usage.stored_bytes == 100
        request_retry(session, jobs[0], 3)
    take(sessions)
    with transaction(sessions) as session:
        larger[-1] = StoredFile("more", 50, "00")  # 250 bytes if the earlier artifact were counted too
        assert finish_succeeded(session, jobs[0], 3, metrics={}, report={}, files=larger) == "succeeded"
        assert {row.attempt for row in session.scalars(select(ArtifactFileRow))} == {3}
        assert get_team(session, team).usage.stored_bytes == 150
