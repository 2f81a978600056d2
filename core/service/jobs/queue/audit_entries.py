"""Audit trail of what workers and the dispatcher do to jobs; requests of users are recorded where they are handled.

Both entries cost no statement of their own: a claim writes one with everything else it does (`claims`), and so does the
end of an attempt (`attempts`).
"""

from typing import Final

from sqlalchemy import CTE, func, insert, literal, select, true
from sqlalchemy.dialects.postgresql import JSONB

from core.database import new_id
from core.service.jobs.tables import WorkerRow
from core.service.teams.tables import AuditRow
from secateur_wire.base import JsonObject
from secateur_wire.states import JobStatus

STARTED: Final = "job.start"
ACTIONS: Final[dict[JobStatus, str]] = {
    "succeeded": "job.succeed",
    "failed": "job.fail",
    "cancelled": "job.stop",
    "queued": "job.requeue",
}
"""Audit action of a worker, or of the dispatcher in its place, by the state it brought the job to."""


def audit_end(ended: CTE, *, team_id: str, job_id: str, to: JobStatus, details: JsonObject, lost: bool) -> CTE:
    """Return the audit entry of an attempt's end, as a CTE next to the one that ends it.

    `ended` has one row with its `worker_id`, or none of an attempt that was claimed by a version that kept no attempts.
    The actor is the worker, whose host is the address; the dispatcher where the worker was lost.
    """
    one = select(literal(1).label("one")).subquery()
    worker = literal("worker:").concat(func.coalesce(ended.c.worker_id, "unknown"))
    entry = select(
        literal(new_id("audit")),
        literal(team_id),
        literal("dispatcher") if lost else worker,
        literal(ACTIONS[to]),
        literal(job_id),
        literal({"status": to, **details}, JSONB),
        literal(None) if lost else WorkerRow.hostname,
    ).select_from(one.outerjoin(ended, true()).outerjoin(WorkerRow, WorkerRow.id == ended.c.worker_id))
    columns = ["id", "team_id", "actor", "action", "object_id", "details", "address"]
    return insert(AuditRow).from_select(columns, entry).cte("noted")
