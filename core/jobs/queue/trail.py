"""The audit trail of what workers and the dispatcher do to jobs; what users ask for is noted where they ask.

A claim writes its own entry, in its one statement (`claims`).
"""

from typing import Any, Final

from sqlalchemy import func, insert, literal, select
from sqlalchemy.orm import Session

from core.database import new_id
from core.jobs.queue.attempts import Ending
from core.jobs.states import JobStatus
from core.jobs.tables import AttemptRow, WorkerRow
from core.teams.tables import AuditRow

STARTED: Final = "job.start"
ACTIONS: Final[dict[JobStatus, str]] = {
    "succeeded": "job.succeed",
    "failed": "job.fail",
    "cancelled": "job.stop",
    "queued": "job.requeue",
}
"""What a worker, or the dispatcher in its place, did to a job that is in this state now."""


def note_end(session: Session, job_id: str, attempt: int, team_id: str, to: JobStatus, ending: Ending) -> None:
    """An attempt ended and brought its job to state `to`: by its worker, whose host is the address, or by the
    dispatcher where the worker was lost. One insert."""
    worker = (
        select(AttemptRow.worker_id).where(AttemptRow.job_id == job_id, AttemptRow.attempt == attempt).scalar_subquery()
    )
    details: dict[str, Any] = {"status": to, "attempt": attempt, "outcome": ending.outcome}
    if ending.error_code is not None:
        details["error"] = ending.error_code
    by_worker: dict[str, Any] = {
        "actor": literal("worker:").concat(func.coalesce(worker, "unknown")),
        "address": select(WorkerRow.hostname).where(WorkerRow.id == worker).scalar_subquery(),
    }
    session.execute(
        insert(AuditRow).values(
            id=new_id("audit"),
            team_id=team_id,
            action=ACTIONS[to],
            object_id=job_id,
            details=details,
            **({"actor": "dispatcher"} if ending.by_dispatcher else by_worker),
        )
    )
