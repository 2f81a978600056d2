"""How attempts end, and what becomes of the job."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from core.artifacts.store import StoredFile
from core.database import seconds_from_now
from core.errors import RunnerLost
from core.jobs.queue.writes import move
from core.jobs.states import JobStatus
from core.jobs.tables import ArtifactFileRow, JobReportRow, JobRow

_LEASE_BATCH = 100


def finish_succeeded(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    metrics: Mapping[str, Any],
    report: Mapping[str, Any],
    files: Iterable[StoredFile],
) -> JobStatus | None:
    """End an attempt whose artifact is stored and verified. The job's new state, None where the attempt is stale.

    A job being cancelled ends as cancelled and keeps nothing: the caller removes the artifact.
    """
    written = move(
        session,
        job_id,
        ("running",),
        "succeeded",
        attempt=attempt,
        data={},
        values={"metrics": dict(metrics), "progress": 1.0, "error": None},
    )
    if written is None:
        return finish_cancelled(session, job_id, attempt)
    _keep(session, job_id, attempt, report, files)
    return "succeeded"


def finish_failed(
    session: Session,
    job_id: str,
    attempt: int,
    problem: Mapping[str, Any],
    *,
    metrics: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    files: Iterable[StoredFile] = (),
    retry_delay_seconds: float = 5,
) -> JobStatus | None:
    """End an attempt with a problem (`SecateurError.problem()`).

    A retryable problem with attempts left puts the job back in the queue, to be claimed after `retry_delay_seconds`;
    any other is final, keeping what report and artifact there are (a missed gate). A job being cancelled ends as
    cancelled. Returns the job's new state, None where the attempt is stale.
    """
    error = {name: problem[name] for name in ("code", "message", "param", "retryable")}
    if error["retryable"] and _requeue(session, job_id, attempt, error, "failed", retry_delay_seconds):
        return "queued"
    written = move(
        session,
        job_id,
        ("running",),
        "failed",
        attempt=attempt,
        data={"error": error},
        values={"error": error, "metrics": None if metrics is None else dict(metrics)},
    )
    if written is None:
        return finish_cancelled(session, job_id, attempt)
    _keep(session, job_id, attempt, report, files)
    return "failed"


def finish_cancelled(session: Session, job_id: str, attempt: int) -> JobStatus | None:
    """End an attempt that was asked to stop; None where the attempt is stale or nobody asked."""
    written = move(session, job_id, ("cancelling",), "cancelled", attempt=attempt, data={})
    return None if written is None else "cancelled"


def expire_leases(session: Session) -> list[str]:
    """End the attempts of workers that stopped renewing: queued again, failed after the last attempt, or cancelled.

    Returns the ids of the jobs. Jobs that another transaction is writing to are left for the next time.
    """
    lost = session.execute(
        select(JobRow.id, JobRow.attempt)
        .where(JobRow.lease_expires_at < func.clock_timestamp())
        .order_by(JobRow.team_id, JobRow.id)
        .limit(_LEASE_BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    problem = RunnerLost("the worker stopped renewing its lease: it was lost, or cut off from the database").problem()
    for job_id, attempt in lost:
        if not _requeue(session, job_id, attempt, problem, "lease_expired", 0):
            finish_failed(session, job_id, attempt, problem | {"retryable": False})
    return [job_id for job_id, _ in lost]


def _requeue(
    session: Session, job_id: str, attempt: int, error: Mapping[str, Any], reason: str, delay_seconds: float
) -> bool:
    written = move(
        session,
        job_id,
        ("running",),
        "queued",
        attempt=attempt,
        data={"reason": reason, "error": dict(error)},
        values={"available_at": seconds_from_now(delay_seconds), "dispatched_at": None},
        only_if=JobRow.attempt < JobRow.attempts_allowed,
    )
    return written is not None


def _keep(
    session: Session, job_id: str, attempt: int, report: Mapping[str, Any] | None, files: Iterable[StoredFile]
) -> None:
    if report is not None:
        session.execute(delete(JobReportRow).where(JobReportRow.job_id == job_id, JobReportRow.attempt == attempt))
        session.execute(insert(JobReportRow).values(job_id=job_id, attempt=attempt, report=dict(report)))
    rows = [
        {"job_id": job_id, "attempt": attempt, "path": file.path, "bytes": file.bytes, "sha256": file.sha256}
        for file in files
    ]
    if rows:
        session.execute(insert(ArtifactFileRow), rows)
