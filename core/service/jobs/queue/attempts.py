"""Record of attempts: a claim begins one, and it ends when the job leaves its worker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import extract, func, select, update
from sqlalchemy.orm import Session

from core.service.jobs.queue.audit_entries import audit_end
from core.service.jobs.tables import AttemptRow
from core.service.teams.quotas import count_ended
from secateur_wire.base import JsonObject
from secateur_wire.states import AttemptOutcome, JobStatus


@dataclass(frozen=True)
class Written:
    """A job's row after a write."""

    job_id: str
    team_id: str
    attempt: int


@dataclass(frozen=True)
class Ending:
    """End of an attempt. `stages` are seconds by stage.

    `measured` has the resources it took, named as its needs are; `by_dispatcher` is true where its worker did not end
    it.
    """

    outcome: AttemptOutcome
    error_code: str | None = None
    stages: Mapping[str, float] | None = None
    measured: Mapping[str, Any] | None = None
    by_dispatcher: bool = False


def end_attempt(session: Session, job: Written, to: JobStatus, ending: Ending) -> None:
    """Record the end of an attempt, which brought the job to state `to`, with its entry in the audit trail.

    Its time is added to the team's use; the team's row is locked from here on.
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
    details: JsonObject = {"attempt": job.attempt, "outcome": ending.outcome}
    if ending.error_code is not None:
        details["error"] = ending.error_code
    noted = audit_end(ended, team_id=job.team_id, job_id=job.job_id, to=to, details=details, lost=ending.by_dispatcher)
    seconds = session.scalar(select(ended.c.seconds).add_cte(noted))
    count_ended(session, job.team_id, float(seconds or 0))  # claimed by a version that kept no attempts: no time
