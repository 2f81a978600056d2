"""Requests of users about a job in the queue: submit, cancel, retry."""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Insert, bindparam, func, insert, inspect, literal
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from core.service.jobs.queue.outgrown import NOTHING_OUTGROWN
from core.service.jobs.queue.transitions import EVENT_CHANNEL, Transition, status_of, transition
from core.service.jobs.queue.webhook_notices import notify_webhooks
from core.service.jobs.tables import JobEventRow, JobRow
from core.service.teams.tables import AuditRow
from secateur_wire.errors import Conflict
from secateur_wire.states import JobStatus

_COLUMNS = {attribute.key for attribute in inspect(JobRow).column_attrs}


class RequestResult(NamedTuple):
    """State of a job after a request, and whether the request changed it."""

    status: JobStatus
    changed: bool


def submitted(session: Session, row: JobRow, entry: Mapping[str, Any] | None = None) -> None:
    """Write a new job, its first event and its entry in the audit trail (`audit.entry`), in one statement.

    The job's hint is recorded as sent: the caller sends it after the commit. `row` then has the job's values, but it is
    not added to the session.
    """
    row.status, row.progress, row.attempt, row.last_event = "queued", 0.0, 0, 1
    given = {name: value for name, value in vars(row).items() if name in _COLUMNS}
    values = {f"job_{name}": value for name, value in given.items()}
    values |= {f"entry_{name}": value for name, value in (entry or {}).items()}
    row.created_at = session.execute(_submission(tuple(given), tuple(entry or ())), values).one().created_at
    notify_webhooks(session, row.id, row.team_id, "queued")


@cache
def _submission(given: tuple[str, ...], noted: tuple[str, ...]) -> Insert:
    """Return the statement that inserts these columns of a job and of its entry in the audit trail.

    It is cached, because building it takes longer than running it.
    """
    first = insert(JobEventRow).values(
        job_id=bindparam("job_id"),
        sequence=1,
        type="status",
        attempt=0,
        data=literal({"status": "queued", "reason": "submitted"}, JSONB),
    )
    job = (
        insert(JobRow)
        .values({name: bindparam(f"job_{name}") for name in given} | {"dispatched_at": func.clock_timestamp()})
        .returning(JobRow.created_at, func.pg_notify(EVENT_CHANNEL, bindparam("job_id")))
        .add_cte(first.cte("first"))
        .execution_options(dml_strategy="raw")  # The values are bound parameters; the ORM would expect rows.
    )
    if not noted:
        return job
    entry = insert(AuditRow).values({name: bindparam(f"entry_{name}") for name in noted})
    return job.add_cte(entry.cte("noted"))


def request_cancel(session: Session, job_id: str) -> RequestResult:
    """Cancel a queued job at once, or ask a running job to stop. Does nothing if that was done before.

    Raises Conflict where the job has ended in another way. The job must exist.
    """
    if transition(session, job_id, Transition(("queued",), "cancelled", data={"reason": "requested"})):
        return RequestResult("cancelled", True)
    if transition(session, job_id, Transition(("running",), "cancelling", data={"reason": "requested"})):
        return RequestResult("cancelling", True)
    status = status_of(session, job_id)
    if status in ("cancelling", "cancelled"):
        return RequestResult(status, False)
    if status in ("queued", "running"):  # A worker claimed it or gave it back between the two statements.
        return request_cancel(session, job_id)
    raise Conflict(f"the job has {status}: there is nothing to cancel")


def request_retry(session: Session, job_id: str, max_attempts: int) -> RequestResult:
    """Queue a failed or cancelled job again with `max_attempts` more attempts. Does nothing if it is not over.

    The figures and the artifact of an attempt that missed a gate stay the job's, until another attempt has stored its
    own. Raises Conflict where the job has succeeded or is being cancelled. The job must exist.
    """
    written = transition(
        session,
        job_id,
        Transition(
            ("failed", "cancelled"),
            "queued",
            data={"reason": "retry"},
            values={
                "attempts_allowed": JobRow.attempt + max_attempts,
                "available_at": func.clock_timestamp(),
                "dispatched_at": func.clock_timestamp(),
                **NOTHING_OUTGROWN,
            },
        ),
    )
    if written is not None:
        return RequestResult("queued", True)
    status = status_of(session, job_id)
    if status in ("queued", "running"):
        return RequestResult(status, False)
    if status == "cancelling":
        raise Conflict("the job is still being cancelled: retry when it has been")
    raise Conflict("the job has succeeded: submit it again to run it again")
