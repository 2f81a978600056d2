"""Queues: what waits in each, and what runs."""

from api.dependencies import DatabaseSession, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.errors import Unauthenticated
from core.service.jobs import fleet
from secateur_wire.fleet import Queue, QueueList

router = Router(prefix="/v1/queues", tags=["workers"])


@router.get("", responses=problems(Unauthenticated))
def list_queues(caller: Viewer, session: DatabaseSession) -> QueueList:
    """Every queue that has jobs now or that a worker serves, by name."""
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
