"""Claimers and clients, as threads in several processes, each with a connection of its own."""

import multiprocessing
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from bench.queue_scale_tables import job_body
from core.database import session_factory, transaction
from core.service.jobs import queue, service
from core.service.jobs.resolution.context import RequestContext
from core.settings import Settings
from core.storage import open_store

PROCESSES = 8


@dataclass(frozen=True)
class Load:
    """`claimers` that take a job, end it, and pause for `pause` seconds on average; `clients` that submit and list."""

    claimers: int
    pause: float
    clients: int
    seconds: float
    progress: bool = False


def run_load(settings: Settings, teams: list[str], load: Load) -> dict[str, list[float]]:
    """Return the seconds of each call, by name.

    All processes start together; calls of the first second, while connections are made, do not count.
    """
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[dict[str, list[float]]] = context.Queue()
    barrier = context.Barrier(PROCESSES)
    processes = [
        context.Process(target=_process, args=(settings, teams, load, number, barrier, results))
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    timings: dict[str, list[float]] = {}
    for _ in processes:
        for name, found in results.get().items():
            timings.setdefault(name, []).extend(found)
    for process in processes:
        process.join()
    return timings


def _progress(job: tuple[str, int], session: Session) -> None:
    queue.set_progress(session, *job, 0.5, {"block": 1, "blocks": 2})


def _finish(job: tuple[str, int], session: Session) -> None:
    queue.finish_succeeded(session, *job, metrics={}, report={}, files=[])


def _process(settings: Settings, teams: list[str], load: Load, number: int, barrier, results) -> None:  # type: ignore[no-untyped-def]
    sys.setswitchinterval(0.0005)  # threads stand in for machines: they should not wait for each other's turn
    sessions, workers = session_factory(settings), session_factory(settings, "worker")
    calls: dict[str, list[float]] = defaultdict(list)
    barrier.wait()
    starts = time.monotonic() + 1
    ends = starts + load.seconds

    def timed(name: str, call: Callable[[Session], object]) -> object:
        begun = time.monotonic()
        with transaction(sessions if name in ("list", "submit") else workers) as session:
            result = call(session)
        if begun >= starts:
            calls[name].append(time.monotonic() - begun)
        return result

    def claimer(name: str) -> None:
        while time.monotonic() < ends:
            if load.pause:
                time.sleep(min(random.expovariate(1 / load.pause), max(0, ends - time.monotonic())))
                if time.monotonic() >= ends:  # or all whose pause was longer would claim at once
                    return
            begun = time.monotonic()
            try:
                claimed = timed("claim", partial(queue.claim, queue="default", worker_id=name, lease_seconds=60))
            except (queue.JobsLocked, OperationalError):  # it waited as long as it may, and asks again
                calls["claim, given up"].append(time.monotonic() - begun)
                continue
            assert isinstance(claimed, queue.Claim)
            job = (claimed.job_id, claimed.attempt)
            if load.progress:
                timed("progress", partial(_progress, job))
            timed("finish", partial(_finish, job))

    def client(team: str) -> None:
        store = open_store(settings)
        while time.monotonic() < ends:
            time.sleep(random.expovariate(10))
            timed("list", partial(service.list_jobs, team_id=team, limit=50, after=None))
            timed("submit", lambda session: service.submit(RequestContext(session, team, store, settings), job_body()))

    threads = [
        threading.Thread(target=claimer, args=(f"worker_{number}_{each}",))
        for each in range(number, load.claimers, PROCESSES)
    ]
    threads += [
        threading.Thread(target=client, args=(teams[each % len(teams)],))
        for each in range(number, load.clients, PROCESSES)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in (sessions, workers):
        each.kw["bind"].dispose()
    results.put(dict(calls))
