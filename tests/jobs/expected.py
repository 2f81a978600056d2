"""Expected states of jobs, and their rows compared with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.service.jobs.states import LEASED, TRANSITIONS
from core.service.jobs.tables import ArtifactFileRow, AttemptRow, JobEventRow, JobReportRow, JobRow
from core.storage import StoredFile
from secateur_wire.states import JobStatus

ATTEMPTS = 2
ARTIFACTS = {
    size: [StoredFile("model.safetensors", size - 20, "0"), StoredFile("config", 20, "0")] for size in (60, 100)
}


@dataclass
class Expected:
    """Facts of a job that are known without asking the database."""

    team: int
    priority: int
    status: JobStatus = "queued"
    attempt: int = 0
    allowed: int = ATTEMPTS
    progress: float = 0
    outcomes: list[str | None] = field(default_factory=list)
    left_by: int | None = None
    """The attempt that metrics, report and artifact are of."""
    kept: int = 0
    """Bytes of the artifact."""

    def leave(self, size: int) -> None:
        """The newest attempt's metrics, report and artifact are the job's."""
        self.left_by, self.kept = self.attempt, size

    def let_go(self, status: JobStatus, outcome: str) -> JobStatus:
        """The state an attempt's end leads to: a job being cancelled ends as cancelled, whatever else ended it."""
        if self.status == "cancelling":
            status, outcome = "cancelled", "cancelled"
        self.status, self.outcomes[-1] = status, outcome
        if status == "queued":
            self.progress = 0
        return status


@dataclass(frozen=True)
class Token:
    """A claim as a worker got it. It goes on using it, whatever became of the job meanwhile."""

    job: str
    attempt: int
    worker: str


def left_by(token: Token, size: int) -> dict[str, Any]:
    """Metrics, report and artifact that name their attempt."""
    named = {"attempt": token.attempt}
    return {"metrics": named, "report": named, "files": ARTIFACTS[size]}


def require_rows_as_expected(session: Session, jobs: Mapping[str, Expected]) -> None:
    """One query for each table: it is asked after every step of many."""
    rows = {row.id: row for row in session.scalars(select(JobRow).where(JobRow.id.in_(jobs)))}
    attempts: dict[str, list[AttemptRow]] = {job: [] for job in jobs}
    events: dict[str, list[JobEventRow]] = {job: [] for job in jobs}
    for attempt in session.scalars(select(AttemptRow).where(AttemptRow.job_id.in_(jobs)).order_by(AttemptRow.attempt)):
        attempts[attempt.job_id].append(attempt)
    for event in session.scalars(
        select(JobEventRow).where(JobEventRow.job_id.in_(jobs)).order_by(JobEventRow.sequence)
    ):
        events[event.job_id].append(event)
    reports = select(JobReportRow).where(JobReportRow.job_id.in_(jobs))
    left = [(row.job_id, row.attempt, row.report) for row in session.scalars(reports)]
    by = {job: each.left_by for job, each in jobs.items() if each.left_by is not None}
    assert sorted(left, key=str) == sorted([(job, at, {"attempt": at}) for job, at in by.items()], key=str)
    files = select(ArtifactFileRow.job_id, ArtifactFileRow.attempt, func.sum(ArtifactFileRow.bytes))
    files = files.where(ArtifactFileRow.job_id.in_(jobs)).group_by(ArtifactFileRow.job_id, ArtifactFileRow.attempt)
    kept = {(job, each.left_by, each.kept) for job, each in jobs.items() if each.kept}
    assert {tuple(found) for found in session.execute(files)} == kept
    for job, expected in jobs.items():
        assert rows[job].metrics == (None if expected.left_by is None else {"attempt": expected.left_by})
        _is_as_expected(rows[job], attempts[job], expected)
        _has_no_gaps_and_states_follow_one_another(rows[job], events[job], expected)


def _is_as_expected(row: JobRow, attempts: list[AttemptRow], expected: Expected) -> None:
    assert (row.status, row.attempt, row.progress) == (expected.status, expected.attempt, expected.progress)
    assert row.attempts_allowed == expected.allowed
    assert (row.finished_at is not None) == (row.status in ("succeeded", "failed", "cancelled"))
    assert (row.worker_id is not None) == (row.status in LEASED)
    assert [attempt.attempt for attempt in attempts] == list(range(1, row.attempt + 1))
    assert [attempt.outcome for attempt in attempts] == expected.outcomes
    assert all((attempt.ended_at is None) == (attempt.outcome is None) for attempt in attempts)


def _has_no_gaps_and_states_follow_one_another(row: JobRow, events: list[JobEventRow], expected: Expected) -> None:
    assert [event.sequence for event in events] == list(range(1, row.last_event + 1))
    statuses = [event.data["status"] for event in events if event.type == "status"]
    assert statuses[0] == "queued" and statuses[-1] == expected.status
    assert all(after in TRANSITIONS[before] for before, after in pairwise(statuses))
