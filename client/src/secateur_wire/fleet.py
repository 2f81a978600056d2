"""Workers, and the queues they serve."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import OneOf, Page, WireModel

WorkerState = Literal["idle", "busy", "paused", "draining"]


class Worker(WireModel):
    """A worker.

    `reason` says why it is paused, or which device failure makes it drain. `job_id` is its current job, if that belongs
    to the requesting team. `device_id` is its device among those of its host, where each device has a worker.
    `device_utilisation` is the share of the last second in which the device computed. `runtimes` are the installed
    programs that run files beside the model's own, such as llama.cpp. `operations_per_second` is what the device did in
    a product of matrices when the worker began.
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
    runtimes: list[str] | None = None
    operations_per_second: float | None = None
    hostname: str
    version: str | None = None
    started_at: datetime
    heartbeat_at: datetime


class WorkerList(Page[Worker]):
    """All workers on a single page."""

    has_more: Literal[False] = False
    next_after: None = None


class Queue(WireModel):
    """A queue that has jobs or that a worker serves.

    It has the number of waiting jobs, the age of the oldest one, and the number of jobs that workers hold. The jobs of
    all teams are counted.
    """

    name: str
    object: Literal["queue"] = "queue"
    queued: int
    oldest_seconds: float
    running: int


class QueueList(Page[Queue]):
    """All queues on a single page."""

    has_more: Literal[False] = False
    next_after: None = None
