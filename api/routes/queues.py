"""Queues: what waits in each, and what runs."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.dependencies import DatabaseSession, Viewer
from api.http.problem_documents import problems
from core.errors import Unauthenticated
from core.service.jobs import fleet

router = APIRouter(prefix="/v1/queues", tags=["workers"])


class Queue(BaseModel):
    """A queue that has jobs or that a worker serves: how many jobs wait, the age of the oldest of them, and how many a
    worker holds. All teams wait in it.
    """

    name: str
    object: Literal["queue"]
    queued: int
    oldest_seconds: float
    running: int


class QueueList(BaseModel):
    """All of them: there are no further pages."""

    data: list[Queue]
    has_more: Literal[False]
    next_after: None


@router.get("", responses=problems(Unauthenticated))
def list_queues(caller: Viewer, session: DatabaseSession) -> QueueList:
    """Every queue that has jobs now or that a worker serves, by name."""
    data = [
        Queue(
            name=each.queue,
            object="queue",
            queued=each.queued,
            oldest_seconds=each.oldest_seconds,
            running=each.running,
        )
        for each in fleet.queue_figures(session)
    ]
    return QueueList(data=data, has_more=False, next_after=None)
