"""Records of attempts: a claim begins one, and it ends when the job leaves its worker. The audit trail has both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import CTE, extract, func, insert, literal, select, true, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from core.database import new_id
from core.service.jobs.tables import AttemptRow, WorkerRow
from core.service.teams.quotas import count_ended
from core.service.teams.tables import AuditRow
from secateur_wire.base import JsonObject
from secateur_wire.states import AttemptOutcome, JobStatus

ACTIONS: Final[dict[JobStatus, str]] = {
    "succeeded": "job.succeed",
    "failed": "job.fail",
    "cancelled": "job.stop",
    "queued": "job.requeue",
}
"""Audit action of a worker, or of the dispatcher on its behalf, by the new state of the job."""


@dataclass(frozen=True)
class ChangedJob:
    """A job's row after a write."""

    job_id: str
    team_id: str
    attempt: int


@dataclass(frozen=True)
class Ending:
    """End of an attempt. `stages` are seconds by stage.

    `measured` has the resources that the attempt used, under the same names as its needs. `by_dispatcher` is true where
    the worker did not end the attempt itself.
    """

    outcome: AttemptOutcome
    error_code: str | None = None
    stages: Mapping[str, float] | None = None
    measured: Mapping[str, Any] | None = None
    by_dispatcher: bool = False


def end_attempt(session: Session, job: ChangedJob, to: JobStatus, ending: Ending) -> None:
    """Record the end of an attempt, which set the job to state `to`, with its entry in the audit trail.

    The time of the attempt is added to the team's use. The team's row stays locked afterwards.
    """
    ended = (
        update(AttemptRow)
        .where(AttemptRow.job_id == job.job_id, AttemptRow.attempt == job.attempt)
        .values(
            ended_at=func.clock_timestamp(),
            outcome=ending.outcome,
            error_code=ending.error_code,
            stages=None if ending.stages is None else dict(ending.stages),
            measured=None if ending.measured is None else dict(ending.measured),
        )
        .returning(
            AttemptRow.worker_id,
            extract("epoch", AttemptRow.ended_at - AttemptRow.started_at).label("seconds"),
        )
        .cte("ended")
    )
    seconds = session.scalar(select(ended.c.seconds).add_cte(_audit_end(ended, job, to, ending)))
    # A version without records of attempts claimed it, so its time is unknown.
    count_ended(session, job.team_id, float(seconds or 0))


def _audit_end(ended: CTE, job: ChangedJob, to: JobStatus, ending: Ending) -> CTE:
    """Return the audit entry of an attempt's end, as a CTE in the statement that ends the attempt.

    `ended` has one row with its `worker_id`, or none for an attempt that a version without records claimed. The actor
    is the worker, and the address is its host; the actor is the dispatcher where the worker was lost.
    """
    details: JsonObject = {"status": to, "attempt": job.attempt, "outcome": ending.outcome}
    if ending.error_code is not None:
        details["error"] = ending.error_code
    one = select(literal(1).label("one")).subquery()
    worker = literal("worker:").concat(func.coalesce(ended.c.worker_id, "unknown"))
    entry = select(
        literal(new_id("audit")),
        literal(job.team_id),
        literal("dispatcher") if ending.by_dispatcher else worker,
        literal(ACTIONS[to]),
        literal(job.job_id),
        literal(details, JSONB),
        literal(None) if ending.by_dispatcher else WorkerRow.hostname,
    ).select_from(one.outerjoin(ended, true()).outerjoin(WorkerRow, WorkerRow.id == ended.c.worker_id))
    columns = ["id", "team_id", "actor", "action", "object_id", "details", "address"]
    return insert(AuditRow).from_select(columns, entry).cte("noted")
