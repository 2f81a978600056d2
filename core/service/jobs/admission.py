"""Admission: the memory and disk that a job needs on a worker, and messages about a worker that has too little.

A claim compares both in its own statement (`core.service.jobs.queue.claims`). Jobs carry a size, which is their needs
rounded to steps. So a claim can skip all jobs of one size that is too large, without reading each of them.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from core.service.jobs.tables import JobRow, WorkerRow
from secateur_wire.jobs import Estimate
from secateur_wire.sizes import size

STEPS_PER_DOUBLING = 4


@dataclass(frozen=True)
class Room:
    """Bytes that a job needs, or that a worker has; None for an unknown figure, which excludes no worker."""

    device_memory_bytes: int | None
    memory_bytes: int | None
    disk_bytes: int | None

    @property
    def size(self) -> int:
        """Return the steps of all figures in one number: 256² · device memory + 256 · memory + disk."""
        return sum(_step(figure) << shift for figure, shift in zip(self._figures(), (16, 8, 0), strict=True))

    def lack(self, worker: WorkerRow) -> str | None:
        """Return a sentence about the first figure that is too small on the worker; None where the job fits."""
        available = room_of(worker)
        for needed, has, name in zip(
            self._figures(), available._figures(), ("device memory", "memory", "free disk"), strict=True
        ):
            if needed is not None and has is not None and needed > has:
                device = worker.device_name or worker.device
                return f"it needs about {size(needed)} of {name}, {device} has {size(has)}"
        return None

    def _figures(self) -> tuple[int | None, int | None, int | None]:
        return self.device_memory_bytes, self.memory_bytes, self.disk_bytes


def room_of(worker: WorkerRow) -> Room:
    """Return the resources that a worker reports."""
    return Room(worker.device_memory_bytes, worker.memory_bytes, worker.disk_free_bytes)


def needs_by(estimate: Estimate) -> Room:
    """Return the resources that a job needs by its estimate."""
    return Room(estimate.peak_device_memory_bytes, estimate.peak_memory_bytes, estimate.disk_bytes)


def needs_of(job: JobRow) -> Room:
    """Return the resources in a job's row, corrected by the measured needs of similar jobs."""
    return Room(job.needs_device_memory_bytes, job.needs_memory_bytes, job.needs_disk_bytes)


def needs_columns(needs: Room) -> dict[str, int | None]:
    """Return the columns of a job's row that store its needs."""
    return {
        "needs_device_memory_bytes": needs.device_memory_bytes,
        "needs_memory_bytes": needs.memory_bytes,
        "needs_disk_bytes": needs.disk_bytes,
        "size": needs.size,
    }


def memory_of(worker: WorkerRow) -> tuple[int, int]:
    """Return the sort key of workers by memory: device memory first, then main memory."""
    return worker.device_memory_bytes or 0, worker.memory_bytes or 0


def largest(workers: Iterable[WorkerRow]) -> WorkerRow:
    """Return the worker with the most memory; `workers` must not be empty."""
    return max(workers, key=memory_of)


def _step(figure: int | None) -> int:
    return 0 if not figure else math.floor(STEPS_PER_DOUBLING * math.log2(figure))
