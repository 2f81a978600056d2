"""The one statement that changes a job, and the events that go with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, func, insert, literal, select, update
from sqlalchemy.orm import Session

from core.jobs.states import HELD, TERMINAL, TRANSITIONS, EventType, JobStatus
from core.jobs.tables import JobEventRow, JobRow
from core.teams.tables import TeamRow

EVENT_CHANNEL = "secateur_events"
"""LISTEN here: the payload is the id of a job that has new events, sent when they are committed."""


@dataclass(frozen=True)
class Written:
    """A job's row after a write; `sequence` is the number of the event that belongs to it."""

    job_id: str
    team_id: str
    attempt: int
    sequence: int
    progress: float


def write(
    session: Session,
    job_id: str,
    *,
    attempt: int | None,
    statuses: Sequence[JobStatus],
    values: Mapping[str, Any],
    only_if: ColumnElement[bool] | None = None,
) -> Written | None:
    """Change a job that is in one of `statuses` (and at `attempt`, where given), taking its next event number.

    None where no row matches. The row stays locked until the transaction ends, so numbers are committed in order.
    """
    statement = (
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.status.in_(statuses))
        .values(dict(values) | {"last_event": JobRow.last_event + 1})
        .returning(JobRow.team_id, JobRow.attempt, JobRow.last_event, JobRow.progress)
        .execution_options(synchronize_session=False)
    )
    if attempt is not None:
        statement = statement.where(JobRow.attempt == attempt)
    if only_if is not None:
        statement = statement.where(only_if)
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    return Written(job_id, row.team_id, row.attempt, row.last_event, row.progress)


def record(session: Session, written: Written, event_type: EventType, data: Mapping[str, Any]) -> None:
    """Store the event that belongs to a write, and wake those who watch the job once it is committed."""
    session.execute(
        insert(JobEventRow).values(
            job_id=written.job_id,
            sequence=written.sequence,
            type=event_type,
            attempt=written.attempt,
            data=dict(data),
        )
    )
    session.execute(select(func.pg_notify(EVENT_CHANNEL, written.job_id)))


def move(
    session: Session,
    job_id: str,
    sources: Sequence[JobStatus],
    to: JobStatus,
    *,
    attempt: int | None,
    data: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
    only_if: ColumnElement[bool] | None = None,
) -> Written | None:
    """Bring a job from one of `sources` to another state, with its event; None where no row matches.

    Sees to what belongs to a state: the lease, the times, and the team's count of running jobs.
    """
    assert all(to in TRANSITIONS[source] for source in sources), f"no way from {sources} to {to}"
    was_held = sources[0] in HELD
    assert all((source in HELD) == was_held for source in sources), sources
    changes: dict[str, Any] = dict(values or {}) | {"status": to}
    if to not in HELD:
        changes |= {"lease_expires_at": None, "worker_id": None}
    if to in TERMINAL:
        changes["finished_at"] = func.clock_timestamp()
    if to == "queued":
        changes |= {"finished_at": None, "stage": None, "progress": 0.0, "metrics": None, "error": None}
    written = write(session, job_id, attempt=attempt, statuses=sources, values=changes, only_if=only_if)
    if written is None:
        return None
    if was_held and to not in HELD:
        count_running(session, written.team_id, -1)
    record(session, written, "status", {"status": to, **data})
    return written


def count_running(session: Session, team_id: str, change: int) -> None:
    session.execute(
        update(TeamRow)
        .where(TeamRow.id == team_id)
        .values(running=TeamRow.running + literal(change))
        .execution_options(synchronize_session=False)
    )


def status_of(session: Session, job_id: str) -> JobStatus | None:
    """A job's status as now committed or written by this transaction."""
    return cast(JobStatus | None, session.scalar(select(JobRow.status).where(JobRow.id == job_id)))
