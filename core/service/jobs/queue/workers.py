"""Reports of workers about themselves: heartbeats, resources and state."""

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
"""Seconds for which the row of a lost worker stays, so that operators can see it."""
_FORGOTTEN_AT_ONCE = 1000

_FRESH_OF_QUEUES = select(WorkerRow).where(
    WorkerRow.queue.in_(bindparam("queues", expanding=True)),
    WorkerRow.heartbeat_at > seconds_from_statement(-bindparam("fresh_seconds", type_=Double)),
)


class WorkerFacts(TypedDict, total=False):
    """Facts that a worker's heartbeat reports. `WorkerRow` describes them."""

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
    runtimes: list[str] | None
    operations_per_second: float | None
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
    """Record a worker's heartbeat; the first one registers the worker. Facts that it leaves out become unknown."""
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
    """Set the state of a worker. A draining worker stays draining."""
    session.execute(
        update(WorkerRow)
        .where(WorkerRow.id == worker_id, WorkerRow.state != "draining")
        .values(state=state, job_id=job_id, reason=reason)
        .execution_options(synchronize_session=False)
    )


def job_of_worker(session: Session, worker_id: str) -> str | None:
    """Return the job that a worker holds now, by the queue's rows.

    Its process may have died during the job, or claimed the job before the worker was registered.
    """
    leased = select(JobRow.id).where(JobRow.worker_id == worker_id, text(f"jobs.{JOB_IS_LEASED}")).limit(1)
    noted = leased.join(WorkerRow, WorkerRow.job_id == JobRow.id).where(WorkerRow.id == worker_id)
    # The first query uses the key, the second searches all leased jobs.
    return session.scalar(noted) or session.scalar(leased)


def remove_worker(session: Session, worker_id: str) -> None:
    """Remove a worker that stops."""
    session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))


@dataclass(frozen=True)
class FreshWorkers:
    """Numbers of workers with a recent heartbeat: workers that take jobs, and workers with a failed device."""

    up: int
    failed: int


def fresh_workers(session: Session, fresh_seconds: float) -> FreshWorkers:
    """Return the numbers of workers with a heartbeat in the last `fresh_seconds`."""
    up = func.count().filter(WorkerRow.state != "draining")
    failed = func.count().filter(WorkerRow.state == "draining", WorkerRow.reason.is_not(None))
    fresh = select(up, failed).where(WorkerRow.heartbeat_at > seconds_from_statement(-fresh_seconds))
    return FreshWorkers(*session.execute(fresh).one())


def workers_of(session: Session, queues: Iterable[str], fresh_seconds: float) -> Sequence[WorkerRow]:
    """Return the workers of these queues with a heartbeat in the last `fresh_seconds`."""
    return session.scalars(_FRESH_OF_QUEUES, {"queues": list(queues), "fresh_seconds": fresh_seconds}).all()


def served_queues(session: Session, fresh_seconds: float) -> Sequence[str]:
    """Return the queues of workers with a heartbeat in the last `fresh_seconds`."""
    fresh = select(WorkerRow.queue).where(WorkerRow.heartbeat_at > seconds_from_statement(-fresh_seconds))
    return session.scalars(fresh.distinct()).all()


def forget_workers(session: Session) -> None:
    """Remove a batch of rows of workers that were lost long ago. Callers repeat this until nothing is left."""
    lost = (
        select(WorkerRow.id)
        .where(WorkerRow.heartbeat_at < seconds_from_statement(-_FORGOTTEN_SECONDS))
        .order_by(WorkerRow.heartbeat_at)
        .limit(_FORGOTTEN_AT_ONCE)
        .with_for_update(skip_locked=True)
        # Picked once: PostgreSQL may run a subquery again for each row, and its limit then has no effect.
        .cte("silent")
    )
    session.execute(
        delete(WorkerRow).where(WorkerRow.id.in_(select(lost.c.id))).execution_options(synchronize_session=False)
    )
