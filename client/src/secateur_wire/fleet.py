"""Workers, and the queues they serve."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import OneOf, Page, WireModel

WorkerState = Literal["idle", "busy", "paused", "draining"]


class Worker(WireModel):
    """A worker. `reason` says why it is paused, or what its device has where it drains for that; `job_id` is what it
    runs, where that is a job of the asking team. `device_id` is which of its host's devices it has, where each has a
    worker; `device_utilisation` the share of the last second in which it computed.
    """

    id: str
    object: Literal["worker"] = "worker"
    queue: str
    state: Annotated[str, OneOf(WorkerState)]
    reason: str | None = None
    job_id: str | None
    device: str
    device_id: str | None = None
    device_name: str | None = None
    device_memory_bytes: int | None = None
    device_memory_used_bytes: int | None = None
    device_utilisation: float | None = None
    device_celsius: int | None = None
    device_uncorrected_errors: int | None = None
    memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    hostname: str
    version: str | None = None
    started_at: datetime
    heartbeat_at: datetime


class WorkerList(Page[Worker]):
    """All of them: there are no further pages."""

    has_more: Literal[False] = False
    next_after: None = None


class Queue(WireModel):
    """A queue that has jobs or that a worker serves: how many jobs wait, the age of the oldest of them, and how many a
    worker holds. All teams wait in it.
    """

    name: str
    object: Literal["queue"] = "queue"
    queued: int
    oldest_seconds: float
    running: int


class QueueList(Page[Queue]):
    """All of them: there are no further pages."""

    has_more: Literal[False] = False
    next_after: None = None
