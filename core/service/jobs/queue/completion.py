"""Ends of attempts and of waiting jobs, and the resulting state of the job."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.service.duties.isolation import is_tried
from core.service.jobs.queue.attempts import ACTIONS, Ending
from core.service.jobs.queue.outgrown import queue_for_more_memory
from core.service.jobs.queue.transitions import Transition, transition
from core.service.jobs.tables import JOB_IS_LEASED, ArtifactFileRow, JobReportRow, JobRow
from core.service.teams import audit
from core.service.teams.principal import Automation
from core.service.teams.quotas import release_stored, stored_bytes_missing, try_reserve_stored
from core.service.teams.tables import TeamRow
from core.storage import StoredFile
from secateur_wire.errors import QuotaExceeded, RunnerLost
from secateur_wire.problems import StoredProblem
from secateur_wire.states import AttemptOutcome, JobStatus

LEASES = "leases"
"""Name of the dispatcher's duty that ends attempts whose worker stopped renewing."""
_LEASE_BATCH = 100
_LOST = (
    select(JobRow.id, JobRow.attempt)
    .join(TeamRow, TeamRow.id == JobRow.team_id)
    .where(text(f"jobs.{JOB_IS_LEASED}"), JobRow.lease_expires_at < func.clock_timestamp(), is_tried(LEASES, JobRow.id))
    .order_by(JobRow.team_id, JobRow.id)
    .limit(_LEASE_BATCH)
)


def finish_succeeded(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    metrics: Mapping[str, Any],
    report: Mapping[str, Any],
    files: Iterable[StoredFile],
    stages: Mapping[str, float] | None = None,
    measured: Mapping[str, Any] | None = None,
) -> JobStatus | None:
    """End an attempt whose artifact is stored and verified. Return the job's new state; None for a stale attempt.

    A job that is being cancelled becomes cancelled. A job whose artifact exceeds the team's quota becomes failed
    (`quota_exceeded`). Neither keeps anything new, and the caller removes the artifact. The artifact of an earlier
    attempt is replaced only if this attempt succeeds. Its files are then no longer named by a row, and the sweep
    removes them from the store.
    """
    kept = list(files)
    missing = _reserve(session, job_id, attempt, kept)
    if missing is not None:
        problem = QuotaExceeded(missing, retry_after=0).problem()
        return finish_failed(session, job_id, attempt, problem, stages=stages)
    written = transition(
        session,
        job_id,
        Transition(
            ("running",),
            "succeeded",
            attempt=attempt,
            data={},
            values={"metrics": dict(metrics), "progress": 1.0, "error": None},
            ending=Ending("succeeded", stages=stages, measured=measured),
        ),
    )
    if written is None:
        return finish_cancelled(session, job_id, attempt, stages=stages)
    _keep(session, job_id, attempt, report, kept)
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
    worker_fresh_seconds: float = 60,
    stages: Mapping[str, float] | None = None,
    measured: Mapping[str, Any] | None = None,
    outcome: AttemptOutcome = "failed",
) -> JobStatus | None:
    """End an attempt with a problem (`SecateurError.problem()`). `measured` is set for an attempt that ran to its end.

    A retryable problem puts the job back in the queue, if attempts are left; it can be claimed after
    `retry_delay_seconds`. A lack of memory does so if a worker has more memory (`outgrown`) and had a heartbeat in
    `worker_fresh_seconds`. Any other problem is final. The job then keeps its metrics, report and artifact, as after a
    missed gate; without an artifact where the team's quota has no room for it. If this attempt has no artifact, the
    artifact of an earlier attempt stays, with its report and metrics. A job that is being cancelled becomes cancelled.
    Returns the job's new state, None where the attempt is stale.
    """
    error = {name: problem[name] for name in ("code", "message", "param", "retryable")}
    is_lost = outcome == "lost"
    ending = Ending(outcome, error_code=error["code"], stages=stages, measured=measured, by_dispatcher=is_lost)
    written = queue_for_more_memory(session, job_id, attempt, error, ending, worker_fresh_seconds)
    if written is not None:
        return "queued"
    if error["retryable"]:
        written = transition(
            session,
            job_id,
            Transition(
                ("running",),
                "queued",
                attempt=attempt,
                data={"reason": "lease_expired" if is_lost else "failed", "error": error},
                values={"available_at": seconds_from_now(retry_delay_seconds), "dispatched_at": None},
                only_if=JobRow.attempt < JobRow.attempts_allowed,
                ending=ending,
            ),
        )
        if written is not None:
            return "queued"
    if is_lost:
        error["retryable"] = False
    kept = list(files)
    if kept and _reserve(session, job_id, attempt, kept) is not None:
        kept = []
    left_any = metrics is not None or report is not None or bool(kept)
    replaces = left_any and (bool(kept) or not _stored_bytes(session, job_id))
    written = transition(
        session,
        job_id,
        Transition(
            ("running",),
            "failed",
            attempt=attempt,
            data={"error": error},
            values={"error": error} | ({"metrics": dict(metrics or {})} if replaces else {}),
            ending=ending,
        ),
    )
    if written is None:
        return finish_cancelled(session, job_id, attempt, stages=stages, by_dispatcher=is_lost)
    if replaces:
        _keep(session, job_id, attempt, report or {}, kept)
    return "failed"


def finish_cancelled(
    session: Session,
    job_id: str,
    attempt: int,
    *,
    stages: Mapping[str, float] | None = None,
    by_dispatcher: bool = False,
) -> JobStatus | None:
    """End an attempt that was asked to stop; None where the attempt is stale or nobody asked.

    `by_dispatcher` is true where the worker was lost meanwhile.
    """
    written = transition(
        session,
        job_id,
        Transition(
            ("cancelling",),
            "cancelled",
            attempt=attempt,
            data={},
            ending=Ending("cancelled", stages=stages, by_dispatcher=by_dispatcher),
        ),
    )
    return None if written is None else "cancelled"


def refuse(session: Session, job_id: str, problem: StoredProblem) -> bool:
    """End a waiting job with a problem, as the dispatcher; False where it no longer waits."""
    error = dict(problem)
    written = transition(
        session, job_id, Transition(("queued",), "failed", data={"error": error}, values={"error": error})
    )
    if written is None:
        return False
    details = {"status": "failed", "error": problem["code"]}
    audit.note(session, Automation(written.team_id, "dispatcher"), ACTIONS["failed"], job_id, details)
    return True


def lost_leases(session: Session) -> Sequence[str]:
    """Return a batch of ids of jobs whose worker stopped renewing."""
    return session.scalars(_LOST.with_only_columns(JobRow.id)).all()


def expire_leases(session: Session, only: str | None = None) -> list[str]:
    """End the attempts of workers that stopped renewing: queued again, failed after the last attempt, or cancelled.

    Returns the ids of the jobs. `only` restricts this to one job. Jobs that another transaction is writing to, and jobs
    of a team whose row is locked, are left for the next call.
    """
    query = _LOST if only is None else _LOST.where(JobRow.id == only)
    lost = session.execute(query.with_for_update(skip_locked=True, key_share=True)).all()
    problem = RunnerLost("the worker stopped renewing its lease: it was lost, or cut off from the database").problem()
    for job_id, attempt in lost:
        finish_failed(session, job_id, attempt, problem, retry_delay_seconds=0, outcome="lost")
    return [job_id for job_id, _ in lost]


def _reserve(session: Session, job_id: str, attempt: int, files: list[StoredFile]) -> str | None:
    """Reserve an artifact's bytes on the team, in place of the artifact it replaces, if the attempt still runs.

    Returns a message if the quota has no room for them, else None.

    The job's row is locked before the team's, as everywhere.
    """
    team_id = session.scalar(
        select(JobRow.team_id)
        .where(JobRow.id == job_id, JobRow.attempt == attempt, JobRow.status == "running")
        .with_for_update(key_share=True)
    )
    if team_id is None:
        return None
    more = sum(file.bytes for file in files) - _stored_bytes(session, job_id)
    if more <= 0:
        release_stored(session, team_id, -more)
        return None
    return None if try_reserve_stored(session, team_id, more) else stored_bytes_missing(session, team_id, more)


def _stored_bytes(session: Session, job_id: str) -> int:
    """Return the bytes of the job's current artifact, from any attempt."""
    return int(session.scalar(select(func.sum(ArtifactFileRow.bytes)).where(ArtifactFileRow.job_id == job_id)) or 0)


def _keep(session: Session, job_id: str, attempt: int, report: Mapping[str, Any], files: list[StoredFile]) -> None:
    """Store this attempt's report and files as the job's, in place of an earlier attempt's.

    An empty report is written too: its row names the attempt of the metrics and files.
    """
    for table in (JobReportRow, ArtifactFileRow):
        session.execute(delete(table).where(table.job_id == job_id))
    session.execute(insert(JobReportRow).values(job_id=job_id, attempt=attempt, report=dict(report)))
    rows = [
        {"job_id": job_id, "attempt": attempt, "path": file.path, "bytes": file.bytes, "sha256": file.sha256}
        for file in files
    ]
    if rows:
        session.execute(insert(ArtifactFileRow), rows)
