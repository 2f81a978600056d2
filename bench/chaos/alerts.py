"""Each alert of deploy/prometheus/alerts.yml and the fault that fires it, tried on a fleet."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import redis

from bench.chaos.installation import Installation
from bench.chaos.prometheus import Prometheus, watch
from bench.chaos.schedule import ALL
from bench.parts import until
from core.database_url import libpq_url

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "alerts.yml"
FASTER = 60
"""An hour of a rule takes a minute, and a minute of waiting the least there is. What an expression compares with, such
as the age of a job, is not shortened."""
PATIENCE_SECONDS = 600
_EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Cause:
    """A fault of this kind to each of the targets at once, kept up until the alert fires. `again` is one that is over
    as soon as it is done, and is done again after so many seconds; a killed worker needs some until it has a job that
    it can lose. With `jobs`, so many are submitted before it; with `requests`, the API is asked for a list of them all
    the while.
    """

    kind: str
    targets: tuple[str, ...] = ("",)
    again: float | None = None
    jobs: int = 0
    requests: bool = False


CAUSES: Final[dict[str, Cause]] = {
    "SecateurDatabaseAway": Cause("postgres_fast", ("postgres",)),
    "SecateurStoreAway": Cause("s3_error500", ("store",)),
    "SecateurBrokerAway": Cause("redis_restart_kept", ("redis",)),
    "SecateurBrokerFull": Cause("redis_full"),
    "SecateurRequestsRefused": Cause("postgres_fast", ("postgres",), requests=True),
    "SecateurWebhooksOverdue": Cause("freeze", ALL.dispatchers, jobs=1),
    "SecateurJobsWaitWhileWorkersIdle": Cause("team_held", jobs=1),
    "SecateurDutyNotDone": Cause("freeze", ALL.dispatchers),
    "SecateurQueueWithoutWorkers": Cause("freeze", ALL.workers, jobs=1),
    "SecateurWorkersPaused": Cause("disk_full", ("worker-0",)),
    "SecateurDeviceFailed": Cause("device_failed"),
    "SecateurWorkersLost": Cause("kill", ALL.workers, again=20, jobs=40),
    "SecateurOutOfMemory": Cause("kill", tuple(f"{worker}/job" for worker in ALL.workers), again=1, jobs=40),
    "SecateurAttemptsFail": Cause("kill", tuple(f"{worker}/job" for worker in ALL.workers), again=1, jobs=40),
    "SecateurSlow": Cause("jobs_held", requests=True),
}

Apply = Callable[[str, str], AbstractContextManager[None]]
"""Does a fault of a kind to a target while its context is entered, as `bench.chaos.faults` has them by name."""


@dataclass(frozen=True)
class FleetAccess:
    """Access to a fleet that a try needs.

    `submit` has so many jobs accepted, whose team has a webhook; `request` asks an API
    for a list of jobs, whatever it answers.
    """

    installation: Installation
    redis_url: str
    apply: Apply
    submit: Callable[[int], None]
    request: Callable[[], None]


def fire_each(
    access: FleetAccess, folder: Path, alerts: Iterable[str] = tuple(CAUSES), say: Callable[[str], None] = print
) -> list[str]:
    """Have each alert's fault come, one after the other; return the alerts that did not come for theirs in time."""
    silent = []
    with watch(access.installation.apis, RULES, folder, FASTER) as prometheus:
        for alert in alerts:
            began = time.monotonic()
            if not _fires(alert, CAUSES[alert], access, prometheus):
                silent.append(alert)
            say(f"{alert}: {'silent' if alert in silent else 'fired'} after {time.monotonic() - began:.0f} s")
            until(lambda: not prometheus.firing(), PATIENCE_SECONDS)
    return silent


def _fires(alert: str, cause: Cause, access: FleetAccess, prometheus: Prometheus) -> bool:
    if cause.jobs:
        access.submit(cause.jobs)
    due = time.monotonic()
    deadline = due + PATIENCE_SECONDS
    with ExitStack() as stack:
        if cause.again is None:
            _do(cause, access, stack)
        while time.monotonic() < deadline:
            if alert in prometheus.firing():
                return True
            if cause.again is not None and time.monotonic() >= due:
                with ExitStack() as once:
                    _do(cause, access, once)
                due = time.monotonic() + cause.again
            if cause.requests:
                access.request()
            time.sleep(_EVERY_SECONDS)
    return False


def _do(cause: Cause, access: FleetAccess, stack: ExitStack) -> None:
    for target in cause.targets:
        own = OWN.get(cause.kind)
        stack.enter_context(access.apply(cause.kind, target) if own is None else own(access))


@contextmanager
def redis_full(access: FleetAccess) -> Iterator[None]:
    """Give Redis less memory than it uses."""
    with redis.Redis.from_url(access.redis_url) as client:
        had = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) // 2)
        try:
            yield
        finally:
            client.config_set("maxmemory", had)


@contextmanager
def team_held(access: FleetAccess) -> Iterator[None]:
    """Hold every team's row, as a transaction that somebody forgot does: no job is claimed."""
    with _locked(access, "SELECT FROM teams FOR UPDATE"):
        yield


@contextmanager
def jobs_held(access: FleetAccess) -> Iterator[None]:
    """Hold the table of jobs against readers, so that a list of them waits for its limit."""
    with _locked(access, "LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"):
        yield


@contextmanager
def device_failed(access: FleetAccess) -> Iterator[None]:
    """Have a worker whose device fell off the bus, as its heartbeat writes it: the machine may have no device."""
    worker = "worker_of_a_lost_device"
    row = (worker, "default", "cuda", "bed", 1, "draining", "the device does not answer: GPU is lost")
    with psycopg.connect(libpq_url(access.installation.database_url), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO workers (id, queue, device, hostname, pid, state, reason) VALUES (%s, %s, %s, %s, %s, %s, %s)",
            row,
        )
        try:
            yield
        finally:
            connection.execute("DELETE FROM workers WHERE id = %s", (worker,))


@contextmanager
def _locked(access: FleetAccess, statement: str) -> Iterator[None]:
    with psycopg.connect(libpq_url(access.installation.database_url)) as connection:
        connection.execute(statement.encode())
        try:
            yield
        finally:
            connection.rollback()


OWN: Final[dict[str, Callable[[FleetAccess], AbstractContextManager[None]]]] = {
    each.__name__: each for each in (redis_full, team_held, jobs_held, device_failed)
}
"""Faults that a run's schedule has not."""
