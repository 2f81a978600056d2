"""The stages that jobs are in, followed in the database so closely that a fault can hit one."""

import time
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from bench.chaos.fleet import Fleet
from core.service.jobs.queue import EVENT_CHANNEL

_RECONNECT_SECONDS = 0.2
_RUNNING = """SELECT jobs.id, workers.pid FROM jobs JOIN workers ON workers.id = jobs.worker_id
WHERE jobs.status = 'running' AND jobs.stage = %s"""
_DONE = "SELECT EXISTS (SELECT FROM job_attempts WHERE ended_at > to_timestamp(%s) AND outcome = 'succeeded')"


@dataclass(frozen=True)
class Running:
    """A job and the name of its worker."""

    job: str
    worker: str


def wait_for(fleet: Fleet, stage: str, seconds: float) -> Running | None:
    """Return a job that is in the stage, as soon as one is; None where none was in time. A job whose worker is gone
    stays in its stage until its lease runs out, and is none. It is looked whenever some job's events are committed.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(psycopg.Error), fleet.installation.connect() as connection:
            connection.execute(f"LISTEN {EVENT_CHANNEL}")
            while time.monotonic() < deadline:
                for job, pid in connection.execute(_RUNNING, (stage,)).fetchall():
                    if (worker := fleet.worker_of(pid)) is not None:
                        return Running(job, worker)
                list(connection.notifies(timeout=0.5, stop_after=1))
        time.sleep(_RECONNECT_SECONDS)
    return None


def has_succeeded_since(fleet: Fleet, moment: float) -> bool:
    """Tell whether a job succeeded after a moment in seconds since the epoch; no while the database is away."""
    with suppress(psycopg.Error), fleet.installation.connect() as connection:
        return connection.execute(_DONE, (moment,)).fetchall() == [(True,)]
    return False
