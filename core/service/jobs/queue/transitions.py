"""Statement that changes a job, and writes the event that goes with it: the only one that does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, func, insert, literal, select, update
from sqlalchemy import cast as as_type
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from core.service.jobs.queue.attempts import Ending, end_attempt
from core.service.jobs.queue.webhook_notices import notify_webhooks
from core.service.jobs.states import LEASED, TERMINAL, TRANSITIONS
from core.service.jobs.tables import JobEventRow, JobRow
from secateur_wire.states import EventType, JobStatus

EVENT_CHANNEL = "secateur_events"
"""Channel to LISTEN on: the payload is the id of a job with new events, sent when they are committed."""


@dataclass(frozen=True)
class Written:
    """A job's row after a write."""

    job_id: str
    team_id: str
    attempt: int


def write(
    session: Session,
    job_id: str,
    *,
    attempt: int | None,
    statuses: Sequence[JobStatus],
    values: Mapping[str, Any],
    event: EventType,
    data: Mapping[str, Any],
    only_if: ColumnElement[bool] | None = None,
) -> Written | None:
    """Change a job that is in one of `statuses` (and at `attempt`, where given), and store its event, in one statement.

    The event has the job's next number; those who watch the job are notified once it is committed. None where no row
    matches. The row stays locked until the transaction ends, so numbers are committed in order. The event of progress
    carries the job's.
    """
    matches = [JobRow.id == job_id, JobRow.status.in_(statuses)]
    if attempt is not None:
        matches.append(JobRow.attempt == attempt)
    if only_if is not None:
        matches.append(only_if)
    changed = (
        update(JobRow)
        .where(*matches)
        .values(dict(values) | {"last_event": JobRow.last_event + 1})
        .returning(JobRow.id, JobRow.team_id, JobRow.attempt, JobRow.last_event, JobRow.progress)
        .cte("changed")
    )
    content: ColumnElement[Any] = literal(dict(data), JSONB)
    if event == "progress":
        content = as_type(content, JSONB).concat(func.jsonb_build_object("progress", changed.c.progress))
    inserted = (
        insert(JobEventRow)
        .from_select(
            ["job_id", "sequence", "type", "attempt", "data"],
            select(changed.c.id, changed.c.last_event, literal(event), changed.c.attempt, content),
        )
        .cte("told")
    )
    row = session.execute(
        select(changed.c.team_id, changed.c.attempt, func.pg_notify(EVENT_CHANNEL, changed.c.id)).add_cte(inserted)
    ).one_or_none()
    return None if row is None else Written(job_id, row.team_id, row.attempt)


def transition(
    session: Session,
    job_id: str,
    sources: Sequence[JobStatus],
    to: JobStatus,
    *,
    attempt: int | None,
    data: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
    only_if: ColumnElement[bool] | None = None,
    ending: Ending | None = None,
) -> Written | None:
    """Bring a job from one of `sources` to another state, with its event; None where no row matches.

    Sees to what belongs to a state: the lease, the times, the webhooks that are told, and, where a worker lets go of
    the job, how its attempt ended (`ending`), what that adds to the team's use, and the audit trail's entry of it.
    """
    assert all(to in TRANSITIONS[source] for source in sources), f"no way from {sources} to {to}"
    was_leased = sources[0] in LEASED
    assert all((source in LEASED) == was_leased for source in sources), sources
    assert (ending is not None) == (was_leased and to not in LEASED), (sources, to, ending)
    changes: dict[str, Any] = dict(values or {}) | {"status": to}
    if to not in LEASED:
        changes |= {"lease_expires_at": None, "worker_id": None}
    if to in TERMINAL:
        changes["finished_at"] = func.clock_timestamp()
    if to == "queued":
        changes |= {"finished_at": None, "stage": None, "progress": 0.0, "error": None}
        changes["events_removed_at"] = None
    written = write(
        session,
        job_id,
        attempt=attempt,
        statuses=sources,
        values=changes,
        event="status",
        data={"status": to, **data},
        only_if=only_if,
    )
    if written is not None:
        notify_webhooks(session, job_id, written.team_id, to)
    if written is not None and ending is not None:
        end_attempt(session, job_id, written.attempt, written.team_id, to, ending)
    return written


def status_of(session: Session, job_id: str) -> JobStatus | None:
    """Return a job's status as now committed or written by this transaction."""
    return cast(JobStatus | None, session.scalar(select(JobRow.status).where(JobRow.id == job_id)))
