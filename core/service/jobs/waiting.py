"""Reasons why a job waits: no worker of the fleet can run it now, or its team runs as many jobs as it may."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.service.jobs.admission import largest, memory_of, needs_of
from core.service.jobs.queue import workers_of
from core.service.jobs.schemas import Job
from core.service.jobs.tables import SHORT_ROW, JobRow, WorkerRow
from core.service.teams.tables import TeamRow
from core.settings import Settings
from secateur_wire.sizes import size


def with_waiting_reasons(session: Session, jobs: Sequence[Job], settings: Settings) -> list[Job]:
    """Return the jobs, with `waiting_reason` set on queued jobs that cannot start.

    A job cannot start if no worker of its queue can take it, or if its team runs as many jobs as it may.
    """
    queued = [job.id for job in jobs if job.status == "queued"]
    if not queued:
        return list(jobs)
    rows = session.scalars(select(JobRow).options(*SHORT_ROW).where(JobRow.id.in_(queued))).all()
    workers: Mapping[str, list[WorkerRow]] = {row.queue: [] for row in rows}
    for worker in workers_of(session, workers, settings.worker_fresh_seconds):
        workers[worker.queue].append(worker)
    full = _full_teams(session, {row.team_id for row in rows})
    reasons = {row.id: waiting_reason(row, workers[row.queue], settings) or full.get(row.team_id) for row in rows}
    return [job.model_copy(update={"waiting_reason": reasons.get(job.id)}) for job in jobs]


def with_waiting_reason(session: Session, job: Job, settings: Settings) -> Job:
    """Return one job with its `waiting_reason`."""
    return with_waiting_reasons(session, [job], settings)[0]


def waiting_reason(job: JobRow, workers: Sequence[WorkerRow], settings: Settings) -> str | None:
    """Return the reason why a queued job waits, None where a worker of its queue can take it."""
    if job.awaits_discovery is not None:
        return "its model's architecture is being examined by a worker"
    if not workers:
        return f"no worker serves queue {job.queue!r} at the moment"
    of_enough_memory = [worker for worker in workers if not _has_outgrown(job, worker)]
    if not of_enough_memory:
        return (
            f"it ran out of memory on a worker with {_memory(*_outgrown(job))}, and waits for one with more; the "
            f"largest of queue {job.queue!r} has {_memory(*memory_of(largest(workers)))}"
        )
    needs = needs_of(job)
    if any(needs.lack(worker) is None for worker in of_enough_memory):
        return None
    return (
        f"no worker of queue {job.queue!r} has room for it: {needs.lack(largest(of_enough_memory))}, the largest "
        f"worker; that worker tries it when the job has waited {settings.admission_max_wait_seconds:g} s"
    )


def _full_teams(session: Session, team_ids: Collection[str]) -> dict[str, str]:
    """Return the reason for each team that runs as many jobs as it may."""
    rows = session.execute(
        select(TeamRow.id, TeamRow.max_running).where(TeamRow.id.in_(team_ids), TeamRow.running >= TeamRow.max_running)
    )
    return {
        team_id: f"the team runs {most} job{'' if most == 1 else 's'} already, which is its limit"
        for team_id, most in rows
    }


def _has_outgrown(job: JobRow, worker: WorkerRow) -> bool:
    return job.outgrown_memory_bytes is not None and memory_of(worker) <= _outgrown(job)


def _outgrown(job: JobRow) -> tuple[int, int]:
    return job.outgrown_device_memory_bytes or 0, job.outgrown_memory_bytes or 0


def _memory(device_memory: int, memory: int) -> str:
    on_device = f"{size(device_memory)} of device memory and " if device_memory else ""
    return f"{on_device}{size(memory)} of memory"
