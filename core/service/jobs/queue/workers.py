"""Reports of workers about themselves: heartbeats, their resources and state."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Required, TypedDict, Unpack, get_args

from sqlalchemy import Double, bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_statement
from core.service.jobs.tables import JOB_IS_LEASED, JobRow, WorkerRow
from secateur_wire.fleet import WorkerState

WORKER_STATES: tuple[WorkerState, ...] = get_args(WorkerState)

_FORGOTTEN_SECONDS = 24 * 3600
"""Seconds that the row of a worker without a goodbye stays, for whoever looks for it."""
_FORGOTTEN_AT_ONCE = 1000

_FRESH_OF_QUEUES = select(WorkerRow).where(
    WorkerRow.queue.in_(bindparam("queues", expanding=True)),
    WorkerRow.heartbeat_at > seconds_from_statement(-bindparam("fresh_seconds", type_=Double)),
)


class WorkerFacts(TypedDict, total=False):
    """Facts of a worker that its heartbeats report. `WorkerRow` says what they mean."""

    queue: Required[str]
    device: Required[str]
    hostname: Required[str]
    pid: Required[int]
    device_id: str | None
    device_name: str | None
    device_memory_bytes: int | None
    device_memory_used_bytes: int | None
    device_utilisation: float | None
    device_celsius: int | None
    device_uncorrected_errors: int | None
    memory_bytes: int | None
    disk_free_bytes: int | None
    work_folders: int | None
    work_bytes: int | None
    version: str | None


def heartbeat(
    session: Session,
    worker_id: str,
    *,
    job_id: str | None = None,
    state: WorkerState = "idle",
    reason: str | None = None,
    **known: Unpack[WorkerFacts],
) -> None:
    """Record a worker's heartbeat; the first one registers it. What it does not say is unknown from now on."""
    unknown = dict.fromkeys(WorkerFacts.__annotations__)
    facts = {**unknown, **known, "job_id": job_id, "state": state, "reason": reason}
    session.execute(
        insert(WorkerRow)
        .values(id=worker_id, **facts)
        .on_conflict_do_update(index_elements=["id"], set_={**facts, "heartbeat_at": func.clock_timestamp()})
    )


def set_worker_state(
    session: Session, worker_id: str, state: WorkerState, *, job_id: str | None = None, reason: str | None = None
) -> None:
    """Set the state of a worker. One that drains goes on draining, whatever else it does."""
    session.execute(
        update(WorkerRow)
        .where(WorkerRow.id == worker_id, WorkerRow.state != "draining")
        .values(state=state, job_id=job_id, reason=reason)
        .execution_options(synchronize_session=False)
    )


def job_of_worker(session: Session, worker_id: str) -> str | None:
    """Return the job that a worker holds now, by the queue.

    Its process may have died during the job, or claimed it before the worker was registered.
    """
    leased = select(JobRow.id).where(JobRow.worker_id == worker_id, text(f"jobs.{JOB_IS_LEASED}")).limit(1)
    noted = leased.join(WorkerRow, WorkerRow.job_id == JobRow.id).where(WorkerRow.id == worker_id)
    return session.scalar(noted) or session.scalar(leased)  # the first finds it by its key, the second among all leased


def remove_worker(session: Session, worker_id: str) -> None:
    """Remove a worker that stops."""
    session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


@dataclass(frozen=True)
class FreshWorkers:
    """Numbers of workers with a fresh heartbeat: those that take jobs, and those whose device failed."""

    up: int
    failed: int


def fresh_workers(session: Session, fresh_seconds: float) -> FreshWorkers:
    """Return the numbers of workers with a heartbeat in the last `fresh_seconds`."""
    up = func.count().filter(WorkerRow.state != "draining")
    failed = func.count().filter(WorkerRow.state == "draining", WorkerRow.reason.is_not(None))
    fresh = select(up, failed).where(WorkerRow.heartbeat_at > seconds_from_statement(-fresh_seconds))
    return FreshWorkers(*session.execute(fresh).one())


def workers_of(session: Session, queues: Iterable[str], fresh_seconds: float) -> Sequence[WorkerRow]:
    """Return the workers of these queues that gave a sign of life in the last `fresh_seconds`."""
    return session.scalars(_FRESH_OF_QUEUES, {"queues": list(queues), "fresh_seconds": fresh_seconds}).all()


def served_queues(session: Session, fresh_seconds: float) -> Sequence[str]:
    """Return the queues of workers with a heartbeat in the last `fresh_seconds`."""
    fresh = select(WorkerRow.queue).where(WorkerRow.heartbeat_at > seconds_from_statement(-fresh_seconds))
    return session.scalars(fresh.distinct()).all()


def forget_workers(session: Session) -> None:
    """Remove some of the rows of workers that ended long ago without saying so. Called again and again."""
    silent = (
        select(WorkerRow.id)
        .where(WorkerRow.heartbeat_at < seconds_from_statement(-_FORGOTTEN_SECONDS))
        .order_by(WorkerRow.heartbeat_at)
        .limit(_FORGOTTEN_AT_ONCE)
        .with_for_update(skip_locked=True)
        .cte("silent")  # picked once: a subquery may be run again for each row, and its limit is then none
    )
    session.execute(
        delete(WorkerRow).where(WorkerRow.id.in_(select(silent.c.id))).execution_options(synchronize_session=False)
    )
