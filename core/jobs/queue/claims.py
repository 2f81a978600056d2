"""Claiming a job, keeping it, and giving it back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.jobs.queue.ends import finish_cancelled
from core.jobs.queue.writes import Written, count_running, move, record
from core.jobs.states import HELD, JobStatus
from core.jobs.tables import JobRow
from core.teams.tables import TeamRow


@dataclass(frozen=True)
class ModelReference:
    """What a job's model resolved to: a folder on this machine, and the hash of its content."""

    name: str
    path: Path
    revision: str


@dataclass(frozen=True)
class TextReference:
    """What a dataset's name resolved to."""

    name: str
    path: Path
    format: str
    text_field: str
    sha256: str


@dataclass(frozen=True)
class Claim:
    """A job in a worker's hands. `body` is the request with defaults; `previous_attempts` are newest first."""

    job_id: str
    attempt: int
    team_id: str
    body: dict[str, Any]
    model: ModelReference
    calibration: TextReference | None
    evaluation: tuple[TextReference, ...]
    previous_attempts: tuple[int, ...]


def claim(session: Session, *, queue: str, worker_id: str, lease_seconds: float) -> Claim | None:
    """Take the best eligible job of a queue: by priority, then the team with fewest running jobs, then age.

    The rows of the teams that have one are locked first, so of two workers the second sees the first's job counted: in
    fairness and quota both. None where nothing is eligible.
    """
    eligible = _eligible(queue)
    waiting = select(JobRow.id).where(JobRow.team_id == TeamRow.id, *eligible).exists()
    teams = session.scalars(
        select(TeamRow.id).where(waiting).order_by(TeamRow.id).with_for_update(key_share=True)
    ).all()
    if not teams:
        return None
    picked = (
        select(JobRow.id)
        .join(TeamRow, TeamRow.id == JobRow.team_id)
        .where(
            *eligible,
            JobRow.team_id.in_(teams),
            or_(TeamRow.max_running.is_(None), TeamRow.running < TeamRow.max_running),
        )
        .order_by(JobRow.priority.desc(), TeamRow.running, JobRow.created_at, JobRow.id)
        .limit(1)
        .with_for_update(of=JobRow, skip_locked=True)
        .cte("picked")
        .prefix_with("MATERIALIZED")
    )
    row = session.execute(
        update(JobRow)
        .where(JobRow.id == picked.c.id)
        .values(
            status="running",
            attempt=JobRow.attempt + 1,
            last_event=JobRow.last_event + 1,
            stage="fetch",
            progress=0.0,
            worker_id=worker_id,
            lease_expires_at=seconds_from_now(lease_seconds),
            started_at=func.clock_timestamp(),
        )
        .returning(JobRow.id, JobRow.team_id, JobRow.attempt, JobRow.last_event, JobRow.body, JobRow.sources)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    count_running(session, row.team_id, +1)
    written = Written(row.id, row.team_id, row.attempt, row.last_event, 0.0)
    record(session, written, "status", {"status": "running", "worker": worker_id})
    return _claim_of(written, row.body, row.sources)


def _eligible(queue: str) -> tuple[ColumnElement[bool], ...]:
    return (JobRow.status == "queued", JobRow.queue == queue, JobRow.available_at <= func.clock_timestamp())


def _claim_of(written: Written, body: dict[str, Any], sources: dict[str, Any]) -> Claim:
    def text_of(source: dict[str, str]) -> TextReference:
        return TextReference(
            name=source["name"],
            path=Path(source["path"]),
            format=source["format"],
            text_field=source["text_field"],
            sha256=source["sha256"],
        )

    model, calibration = sources["model"], sources["calibration"]
    return Claim(
        job_id=written.job_id,
        attempt=written.attempt,
        team_id=written.team_id,
        body=body,
        model=ModelReference(name=model["name"], path=Path(model["path"]), revision=model["revision"]),
        calibration=None if calibration is None else text_of(calibration),
        evaluation=tuple(text_of(source) for source in sources["evaluation"]),
        previous_attempts=tuple(range(written.attempt - 1, 0, -1)),
    )


def renew(
    session: Session, job_id: str, attempt: int, lease_seconds: float
) -> Literal["running", "cancelling", "lost"]:
    """Keep a job for another `lease_seconds`; says whether it should go on, stop, or is no longer this attempt's."""
    status = session.scalar(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.attempt == attempt, JobRow.status.in_(HELD))
        .values(lease_expires_at=seconds_from_now(lease_seconds))
        .returning(JobRow.status)
        .execution_options(synchronize_session=False)
    )
    if status == "running":
        return "running"
    return "cancelling" if status == "cancelling" else "lost"


def release(session: Session, job_id: str, attempt: int) -> JobStatus | None:
    """Give a job back unharmed (a worker that drains): it is queued again and the attempt does not count.

    A job being cancelled ends as cancelled instead. None where the attempt is stale.
    """
    written = move(
        session,
        job_id,
        ("running",),
        "queued",
        attempt=attempt,
        data={"reason": "released"},
        values={
            "attempts_allowed": JobRow.attempts_allowed + 1,
            "available_at": func.clock_timestamp(),
            "dispatched_at": None,
        },
    )
    return finish_cancelled(session, job_id, attempt) if written is None else "queued"
