"""The only statement that changes a job; it also writes the event of the change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import ColumnElement, func, insert, literal, select, update
from sqlalchemy import cast as as_type
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from core.service.jobs.queue.attempts import ChangedJob, Ending, end_attempt
from core.service.jobs.queue.webhook_notices import notify_webhooks
from core.service.jobs.states import LEASED, TERMINAL, TRANSITIONS
from core.service.jobs.tables import JobEventRow, JobRow
from secateur_wire.states import EventType, JobStatus

EVENT_CHANNEL = "secateur_events"
"""Channel to LISTEN on: the payload is the id of a job with new events, sent when they are committed."""


@dataclass(frozen=True)
class JobChange:
    """Change of a job in one of `statuses` (and at `attempt`, if given), with the event that records it."""

    statuses: Sequence[JobStatus]
    event: EventType
    data: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    attempt: int | None = None
    only_if: ColumnElement[bool] | None = None


@dataclass(frozen=True)
class Transition:
    """Change of a job from one of `sources` to another state.

    `ending` is the end of its attempt, where a worker lets go of the job.
    """

    sources: Sequence[JobStatus]
    to: JobStatus
    data: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    attempt: int | None = None
    only_if: ColumnElement[bool] | None = None
    ending: Ending | None = None


def write(session: Session, job_id: str, change: JobChange) -> ChangedJob | None:
    """Change a job and store the event of the change, in one statement.

    The event has the job's next number. Listeners are notified after the commit. None where no row matches. The row
    stays locked until the transaction ends, so numbers are committed in order. An event of progress has the job's
    progress.
    """
    matches = [JobRow.id == job_id, JobRow.status.in_(change.statuses)]
    if change.attempt is not None:
        matches.append(JobRow.attempt == change.attempt)
    if change.only_if is not None:
        matches.append(change.only_if)
    changed = (
        update(JobRow)
        .where(*matches)
        .values(dict(change.values) | {"last_event": JobRow.last_event + 1})
        .returning(JobRow.id, JobRow.team_id, JobRow.attempt, JobRow.last_event, JobRow.progress)
        .cte("changed")
    )
    content: ColumnElement[Any] = literal(dict(change.data), JSONB)
    if change.event == "progress":
        content = as_type(content, JSONB).concat(func.jsonb_build_object("progress", changed.c.progress))
    inserted = (
        insert(JobEventRow)
        .from_select(
            ["job_id", "sequence", "type", "attempt", "data"],
            select(changed.c.id, changed.c.last_event, literal(change.event), changed.c.attempt, content),
        )
        .cte("told")
    )
    row = session.execute(
        select(changed.c.team_id, changed.c.attempt, func.pg_notify(EVENT_CHANNEL, changed.c.id)).add_cte(inserted)
    ).one_or_none()
    return None if row is None else ChangedJob(job_id, row.team_id, row.attempt)


def transition(session: Session, job_id: str, change: Transition) -> ChangedJob | None:
    """Set a job to another state, with its event; None where no row matches.

    Also writes what the new state implies: the lease, the times and the webhook events. Where a worker lets go of the
    job, it ends the attempt, adds its time to the team's use, and writes the audit entry.
    """
    sources, to, ending = change.sources, change.to, change.ending
    assert all(to in TRANSITIONS[source] for source in sources), f"no way from {sources} to {to}"
    was_leased = sources[0] in LEASED
    assert all((source in LEASED) == was_leased for source in sources), sources
    assert (ending is not None) == (was_leased and to not in LEASED), (sources, to, ending)
    changes: dict[str, Any] = dict(change.values) | {"status": to}
    if to not in LEASED:
        changes |= {"lease_expires_at": None, "worker_id": None}
    if to in TERMINAL:
        changes["finished_at"] = func.clock_timestamp()
    if to == "queued":
        changes |= {"finished_at": None, "stage": None, "progress": 0.0, "error": None}
        changes["events_removed_at"] = None
    data = {"status": to, **change.data}
    written = write(session, job_id, JobChange(sources, "status", data, changes, change.attempt, change.only_if))
    if written is not None:
        notify_webhooks(session, job_id, written.team_id, to)
    if written is not None and ending is not None:
        end_attempt(session, written, to, ending)
    return written


def status_of(session: Session, job_id: str) -> JobStatus | None:
    """Return a job's status as now committed, or as written by this transaction."""
    return cast(JobStatus | None, session.scalar(select(JobRow.status).where(JobRow.id == job_id)))
