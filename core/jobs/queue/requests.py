"""What users ask of a job: to be queued, to stop, to try again."""

from sqlalchemy import func
from sqlalchemy.orm import Session

from core.errors import Conflict
from core.jobs.queue.writes import Written, move, record, status_of
from core.jobs.states import JobStatus
from core.jobs.tables import JobRow


def submitted(session: Session, row: JobRow) -> None:
    """Write a new job and its first event. Its hint counts as sent: the caller sends it after the commit."""
    row.status = "queued"
    row.last_event = 1
    session.add(row)
    session.flush()
    row.dispatched_at = session.scalar(func.clock_timestamp().select())
    session.flush()
    record(session, Written(row.id, row.team_id, 0, 1, 0.0), "status", {"status": "queued", "reason": "submitted"})


def request_cancel(session: Session, job_id: str) -> JobStatus:
    """Cancel at once what is queued, ask a running job to stop; nothing happens where that was done before.

    The job's new state. Raises Conflict where the job ended otherwise. The job must exist.
    """
    if move(session, job_id, ("queued",), "cancelled", attempt=None, data={"reason": "requested"}):
        return "cancelled"
    if move(session, job_id, ("running",), "cancelling", attempt=None, data={"reason": "requested"}):
        return "cancelling"
    status = status_of(session, job_id)
    if status in ("cancelling", "cancelled"):
        return status
    if status in ("queued", "running"):  # it was claimed or given back between the two statements
        return request_cancel(session, job_id)
    raise Conflict(f"the job has {status}: there is nothing to cancel")


def request_retry(session: Session, job_id: str, max_attempts: int) -> JobStatus:
    """Queue a failed or cancelled job again with `max_attempts` more attempts; nothing happens where it is not over.

    The job's new state. Raises Conflict where the job has succeeded or is being cancelled. The job must exist.
    """
    written = move(
        session,
        job_id,
        ("failed", "cancelled"),
        "queued",
        attempt=None,
        data={"reason": "retry"},
        values={
            "attempts_allowed": JobRow.attempt + max_attempts,
            "available_at": func.clock_timestamp(),
            "dispatched_at": func.clock_timestamp(),
        },
    )
    if written is not None:
        return "queued"
    status = status_of(session, job_id)
    if status in ("queued", "running"):
        return status
    if status == "cancelling":
        raise Conflict("the job is still being cancelled: retry it once it is")
    raise Conflict("the job has succeeded: submit it again to run it again")
