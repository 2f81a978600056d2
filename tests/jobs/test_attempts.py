from collections.abc import Callable

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import (
    append_event,
    claim,
    finish_cancelled,
    finish_failed,
    finish_succeeded,
    hint_failed,
    hints_due,
    mark_dispatched,
    release,
    request_cancel,
    request_retry,
    set_progress,
    set_stage,
)
from core.service.jobs.tables import ArtifactFileRow, AttemptRow, JobEventRow, JobReportRow, JobRow
from core.service.teams.tables import TeamRow
from core.storage import StoredFile
from secateur_wire.errors import Conflict, OutOfMemory, RunnerLost
from tests.jobs.conftest import NewJob

Sessions = sessionmaker[Session]
LOST = RunnerLost("gone").problem()
MEMORY = OutOfMemory("too large").problem()
FILES = [StoredFile("secateur.json", 2, "00")]


def take(sessions: Sessions, lease_seconds: float = 60) -> int:
    with transaction(sessions) as session:
        claimed = claim(session, queue="default", worker_id="worker_1", lease_seconds=lease_seconds)
        assert claimed is not None
        return claimed.attempt


def row_of(sessions: Sessions, job: str) -> JobRow:
    with transaction(sessions) as session:
        return session.scalars(select(JobRow).where(JobRow.id == job)).one()


def events_of(sessions: Sessions, job: str) -> list[JobEventRow]:
    with transaction(sessions) as session:
        found = select(JobEventRow).where(JobEventRow.job_id == job).order_by(JobEventRow.sequence)
        return list(session.scalars(found))


def statuses_of(sessions: Sessions, job: str) -> list[str]:
    return [event.data["status"] for event in events_of(sessions, job) if event.type == "status"]


def running_total(sessions: Sessions) -> int:
    with transaction(sessions) as session:
        return session.scalar(select(func.sum(TeamRow.running))) or 0


STALE_WRITES: dict[str, Callable[[Session, str], object]] = {
    "stage": lambda session, job: set_stage(session, job, 1, "prune"),
    "progress": lambda session, job: set_progress(session, job, 1, 0.9),
    "log": lambda session, job: append_event(session, job, 1, "log", {}),
    "succeeded": lambda session, job: finish_succeeded(session, job, 1, metrics={}, report={}, files=FILES),
    "failed": lambda session, job: finish_failed(session, job, 1, MEMORY, report={}, files=FILES),
    "failed, retryable": lambda session, job: finish_failed(session, job, 1, LOST),
    "cancelled": lambda session, job: finish_cancelled(session, job, 1),
    "released": lambda session, job: release(session, job, 1),
}


@pytest.mark.parametrize("write", STALE_WRITES.values(), ids=STALE_WRITES)
def test_a_stale_attempts_write_matches_no_row(
    sessions: Sessions, new_job: NewJob, write: Callable[[Session, str], object]
) -> None:
    job = new_job()
    take(sessions)
    with transaction(sessions) as session:
        release(session, job, 1)
    assert take(sessions) == 2
    before = row_of(sessions, job).last_event
    with transaction(sessions) as session:
        assert not write(session, job)
    after = row_of(sessions, job)
    assert (after.status, after.attempt, after.last_event) == ("running", 2, before)
    assert len(events_of(sessions, job)) == before
    assert running_total(sessions) == 1
    with transaction(sessions) as session:
        assert not session.scalars(select(ArtifactFileRow)).all()
        assert not session.scalars(select(JobReportRow)).all()


def test_progress_never_goes_back_within_an_attempt(sessions: Sessions, new_job: NewJob) -> None:
    job = new_job()
    take(sessions)
    with transaction(sessions) as session:
        for progress in (0.2, 0.7, 0.4, 0.8):
            assert set_progress(session, job, 1, progress)
    shown = [event.data["progress"] for event in events_of(sessions, job) if event.type == "progress"]
    assert shown == [0.2, 0.7, 0.7, 0.8]
    with transaction(sessions) as session:
        release(session, job, 1)
    take(sessions)
    assert row_of(sessions, job).progress == 0


def test_a_retryable_end_is_queued_again_until_attempts_run_out(sessions: Sessions, new_job: NewJob) -> None:
    job = new_job(attempts=2)
    take(sessions)
    with transaction(sessions) as session:
        assert finish_failed(session, job, 1, LOST, retry_delay_seconds=0) == "queued"
    take(sessions)
    with transaction(sessions) as session:
        assert finish_failed(session, job, 2, LOST, retry_delay_seconds=0) == "failed"
    row = row_of(sessions, job)
    assert row.error == LOST and row.finished_at is not None
    assert statuses_of(sessions, job) == ["queued", "running", "queued", "running", "failed"]


def test_a_job_waits_before_it_is_tried_again(sessions: Sessions, new_job: NewJob) -> None:
    job = new_job()
    take(sessions)
    with transaction(sessions) as session:
        finish_failed(session, job, 1, LOST, retry_delay_seconds=60)
        assert claim(session, queue="default", worker_id="worker_1", lease_seconds=60) is None
        assert hints_due(session, 30) == []


def test_a_drained_worker_costs_no_attempt(sessions: Sessions, new_job: NewJob) -> None:
    job = new_job(attempts=2)
    take(sessions)
    with transaction(sessions) as session:
        release(session, job, 1)
    take(sessions)
    with transaction(sessions) as session:
        assert finish_failed(session, job, 2, LOST) == "queued", "one of two was used"


@pytest.mark.parametrize("end", ["succeeded", "failed", "retryable"])
def test_whatever_ends_a_cancelling_job_ends_it_as_cancelled(sessions: Sessions, new_job: NewJob, end: str) -> None:
    job = new_job()
    take(sessions)
    with transaction(sessions) as session:
        request_cancel(session, job)
        if end == "succeeded":
            result = finish_succeeded(session, job, 1, metrics={}, report={}, files=FILES)
        else:
            result = finish_failed(session, job, 1, LOST if end == "retryable" else MEMORY)
        assert result == "cancelled"
        assert session.scalars(select(ArtifactFileRow)).all() == []


def test_a_retry_gives_a_full_set_of_attempts_clears_the_last_end_and_keeps_what_it_measured(
    sessions: Sessions, new_job: NewJob
) -> None:
    job = new_job(attempts=1)
    take(sessions)
    with transaction(sessions) as session:
        finish_failed(session, job, 1, LOST, metrics={"a": 1})
        assert [request_retry(session, job, 3) for _ in range(2)] == [("queued", True), ("queued", False)]
    row = row_of(sessions, job)
    assert (row.error, row.metrics, row.finished_at, row.attempts_allowed) == (None, {"a": 1}, None, 4)
    assert statuses_of(sessions, job) == ["queued", "running", "failed", "queued"]
    assert take(sessions) == 2
    with transaction(sessions) as session:
        assert request_retry(session, job, 3) == ("running", False)
        request_cancel(session, job)
        with pytest.raises(Conflict):
            request_retry(session, job, 3)
        finish_cancelled(session, job, 2)
        assert request_retry(session, job, 3) == ("queued", True)


def test_hints_are_due_until_sent_and_again_when_stale(sessions: Sessions, new_job: NewJob) -> None:
    job = new_job()
    with transaction(sessions) as session:
        assert hints_due(session, 30) == []  # the API sends the first one itself
        hint_failed(session, job)
        assert hints_due(session, 30) == [(job, "default")]
        mark_dispatched(session, [job])
        assert hints_due(session, 30) == []
        assert hints_due(session, 0) == [(job, "default")]
        session.execute(update(JobRow).values(status="cancelled"))
        assert hints_due(session, 0) == []


def test_a_long_queue_gets_only_so_many_hints(
    sessions: Sessions, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.service.jobs.queue.maintenance.HINTS_PER_QUEUE", 2)
    jobs = [new_job() for _ in range(3)]
    urgent = new_job(priority=1)
    large = new_job(queue="large")
    with transaction(sessions) as session:
        assert hints_due(session, 0) == [(urgent, "default"), (jobs[0], "default"), (large, "large")]


ENDS: dict[str, Callable[[Session, str], object]] = {
    "succeeded": lambda session, job: finish_succeeded(
        session, job, 1, metrics={}, report={}, files=[], stages={"prune": 2.5}, measured={"seconds": 3}
    ),
    "failed": lambda session, job: finish_failed(session, job, 1, OutOfMemory("").problem(), stages={"prune": 2.5}),
    "released": lambda session, job: release(session, job, 1, stages={"prune": 2.5}),
}


@pytest.mark.parametrize("outcome", ENDS)
def test_an_attempt_is_kept_as_a_record(sessions: Sessions, new_job: NewJob, team: str, outcome: str) -> None:
    job = new_job()
    with transaction(sessions) as session:
        session.execute(update(JobRow).values(estimate={"seconds": 4}))
    take(sessions)
    with transaction(sessions) as session:
        row = session.scalars(select(AttemptRow)).one()
        assert (row.job_id, row.attempt, row.team_id, row.worker_id) == (job, 1, team, "worker_1")
        assert (row.queue, row.method, row.needs) == ("default", "magnitude", {"seconds": 4})
        assert (row.ended_at, row.outcome) == (None, None)
        ENDS[outcome](session, job)
        session.refresh(row)
        assert row.outcome == outcome and row.ended_at is not None and row.stages == {"prune": 2.5}
        assert row.error_code == ("out_of_memory" if outcome == "failed" else None)
        assert row.measured == ({"seconds": 3} if outcome == "succeeded" else None)
