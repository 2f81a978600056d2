"""The record of attempts: a claim begins one, whatever takes the job from its worker ends it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import extract, func, update
from sqlalchemy.orm import Session

from core.jobs.states import AttemptOutcome
from core.jobs.tables import AttemptRow
from core.teams.quotas import count_ended


@dataclass(frozen=True)
class Ending:
    """How an attempt ended. `stages` are seconds by stage, `measured` what it took, named as its needs are;
    `by_dispatcher` where its worker did not end it.
    """

    outcome: AttemptOutcome
    error_code: str | None = None
    stages: Mapping[str, float] | None = None
    measured: Mapping[str, Any] | None = None
    by_dispatcher: bool = False


def end_attempt(session: Session, job_id: str, attempt: int, team_id: str, ending: Ending) -> None:
    """Write down an attempt's end and add its time to the team's use; the team's row is locked from here on."""
    seconds = session.scalar(
        update(AttemptRow)
        .where(AttemptRow.job_id == job_id, AttemptRow.attempt == attempt)
        .values(
            ended_at=func.clock_timestamp(),
            outcome=ending.outcome,
            error_code=ending.error_code,
            stages=None if ending.stages is None else dict(ending.stages),
            measured=None if ending.measured is None else dict(ending.measured),
        )
        .returning(extract("epoch", AttemptRow.ended_at - AttemptRow.started_at))
        .execution_options(synchronize_session=False)
    )
    count_ended(session, team_id, float(seconds or 0))  # claimed by a version that kept no attempts: no time
