"""Routes of the workers with a recent heartbeat, and of the queues."""

from sqlalchemy.orm import Session

from api.dependencies import DatabaseSession, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.service.jobs import fleet
from core.service.jobs.tables import WorkerRow
from secateur_wire.errors import Unauthenticated
from secateur_wire.fleet import Queue, QueueList, Worker, WorkerList

router = Router(prefix="/v1", tags=["workers"])


@router.get("/workers", responses=problems(Unauthenticated))
def list_workers(caller: Viewer, session: DatabaseSession, state: State) -> WorkerList:
    """List the workers of all queues, oldest first.

    They serve all teams. A worker's current job is shown only to the job's team.
    """
    data = workers_shown_to(session, caller.team_id, state.settings.worker_fresh_seconds)
    return WorkerList(data=data, has_more=False, next_after=None)


def workers_shown_to(session: Session, team_id: str, fresh_seconds: float) -> list[Worker]:
    """Return every worker with a recent heartbeat, with its job if the job is the team's."""
    rows = fleet.workers(session, fresh_seconds)
    own = fleet.own_jobs(session, team_id, [row.job_id for row in rows if row.job_id])
    return [_answer(row, row.job_id if row.job_id in own else None) for row in rows]


def _answer(row: WorkerRow, job_id: str | None) -> Worker:
    own = [name for name in Worker.model_fields if name not in ("object", "job_id")]
    return Worker.model_validate({name: getattr(row, name) for name in own} | {"job_id": job_id})


@router.get("/queues", responses=problems(Unauthenticated))
def list_queues(caller: Viewer, session: DatabaseSession) -> QueueList:
    """List every queue that has jobs now or that a worker serves, by name."""
    data = [
        Queue(
            name=each.queue,
            queued=each.queued,
            oldest_seconds=each.oldest_seconds,
            running=each.running,
        )
        for each in fleet.queue_figures(session)
    ]
    return QueueList(data=data, has_more=False, next_after=None)
