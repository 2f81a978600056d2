"""Many clients, a few workers, a method that does nothing: how long submitting takes, how soon a worker has the job,
and that none is lost, run twice or served out of turn. `python -m bench.load [--jobs 1000]`.

Everything is real but the method: uvicorn, PostgreSQL, redis-server (from the system's packages), Celery workers, a
process per runner task. What happens while parts of it are away is asked by `bench.chaos`.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from bench.load_fleet import MODEL, Fleet
from bench.page import milliseconds, table
from core.database import transaction
from core.service.jobs.tables import AttemptRow, JobRow
from secateur import Client


@dataclass
class Findings:
    """Times in seconds. `runs` counts what the runner saw, by job and attempt; `unfair` is the largest distance of a
    team's share of starts from an equal one while every team had jobs waiting (None where that was hardly ever so).
    """

    submit: list[float]
    free_submit: list[float]
    free_claim: list[float]
    claim: list[float]
    seconds: float
    ended: Counter[str]
    attempts: Counter[int]
    runs: Counter[tuple[str, int]]
    submitted: list[str]
    unfair: float | None

    @property
    def lost(self) -> int:
        """Jobs whose submission was answered and that did not succeed."""
        return len(self.submitted) - self.ended["succeeded"]

    @property
    def run_twice(self) -> int:
        """Attempts that were run more than once."""
        return sum(count > 1 for count in self.runs.values())


def measure(
    fleet: Fleet,
    keys: Sequence[str],
    *,
    jobs: int,
    rate: float,
    alone: int,
    say: Callable[[str], None] = lambda line: None,
) -> Findings:
    """One run. `rate` is of all clients together, in jobs a second (0: as fast as they can); `alone` is how many jobs
    are first sent one at a time, to workers that are free. Times to a claim and attempts run are of all that this fleet
    has had.
    """
    free_submit, first = _alone(fleet, keys[0], alone)
    began = time.monotonic()
    crowd = Crowd(fleet.url, keys, jobs, rate)
    crowd.start()
    crowd.join()
    _wait_for_all(fleet, say)
    return _findings(fleet, crowd, free_submit, first, time.monotonic() - began)


def _alone(fleet: Fleet, key: str, count: int) -> tuple[list[float], list[str]]:
    """One job at a time, each sent when the one before has ended."""
    times, made = [], []
    with Client(fleet.url, key) as client:
        for _ in range(count + 1):
            started = time.perf_counter()
            job = client.submit(model=MODEL, method="noop", sparsity=0.5)
            times.append(time.perf_counter() - started)
            made.append(job.id)
            while not client.job(job.id).finished:
                time.sleep(0.02)
            time.sleep(0.05)  # the worker asks once more, and then waits for a hint
    return times[1:], made[1:]  # the first opens connections


class Crowd:
    """Clients in threads, each with a key and a connection of its own."""

    def __init__(self, url: str, keys: Sequence[str], jobs: int, rate: float) -> None:
        self._pause = len(keys) / rate if rate else 0.0
        self.times: list[float] = []
        self.submitted: list[str] = []
        self.failures: list[BaseException] = []
        shares = [jobs // len(keys) + (number < jobs % len(keys)) for number in range(len(keys))]
        self._threads = [
            threading.Thread(target=self._submit, args=(url, key, share))
            for key, share in zip(keys, shares, strict=True)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def _submit(self, url: str, key: str, count: int) -> None:
        try:
            with Client(url, key) as client:
                due = time.monotonic() + random.uniform(0, self._pause)
                for _ in range(count):
                    time.sleep(max(0.0, due - time.monotonic()))
                    due += self._pause
                    started = time.perf_counter()
                    job = client.submit(model=MODEL, method="noop", sparsity=0.5)
                    self.times.append(time.perf_counter() - started)
                    self.submitted.append(job.id)
        except BaseException as error:
            self.failures.append(error)


def _wait_for_all(fleet: Fleet, say: Callable[[str], None]) -> None:
    left, since = -1, time.monotonic()
    while True:
        with transaction(fleet.sessions) as session:
            open_jobs = session.scalars(select(JobRow.status).where(JobRow.finished_at.is_(None))).all()
        if not open_jobs:
            return
        if len(open_jobs) != left:
            left, since = len(open_jobs), time.monotonic()
        if time.monotonic() - since > 120:
            say(f"nothing ended for two minutes: {Counter(open_jobs)}")
            return
        time.sleep(0.5)


def _findings(fleet: Fleet, crowd: Crowd, free_submit: list[float], first: list[str], seconds: float) -> Findings:
    with transaction(fleet.sessions) as session:
        rows = session.execute(
            select(
                JobRow.id, JobRow.status, JobRow.team_id, JobRow.created_at, AttemptRow.attempt, AttemptRow.started_at
            )
            .join(AttemptRow, AttemptRow.job_id == JobRow.id)
            .order_by(AttemptRow.started_at)
        ).all()
    alone = set(first)
    waits = {row.id: (row.started_at - row.created_at).total_seconds() for row in rows if row.attempt == 1}
    statuses = {row.id: row.status for row in rows}
    tried = Counter(row.id for row in rows)
    lines = (fleet.folder / "runs.log").read_text().splitlines()
    runs = Counter((job, int(attempt)) for job, attempt in map(str.split, lines))
    starts = [(row.id, row.team_id, row.created_at, row.started_at) for row in rows if row.attempt == 1]
    return Findings(
        submit=crowd.times,
        free_submit=free_submit,
        free_claim=[waits[job] for job in first],
        claim=[wait for job, wait in waits.items() if job not in alone],
        seconds=seconds,
        ended=Counter(statuses.get(job, "never started") for job in crowd.submitted),
        attempts=Counter(tried[job] for job in crowd.submitted),
        runs=runs,
        submitted=crowd.submitted,
        unfair=_unfairness([start for start in starts if start[0] not in alone]),
    )


def _unfairness(starts: Sequence[tuple[str, str, object, object]]) -> float | None:
    """While every team waits, each should get its turn: the largest distance of a team's share from an equal one."""
    teams = {team for _, team, _, _ in starts}
    waiting: dict[str, list[tuple[object, object]]] = {team: [] for team in teams}
    for _, team, created, started in starts:
        waiting[team].append((created, started))
    given = Counter(
        team
        for _, team, _, now in starts
        if all(any(created < now <= started for created, started in waiting[each]) for each in teams)  # type: ignore[operator]
    )
    if given.total() < 10 * len(teams):
        return None
    return max(abs(given[team] / given.total() - 1 / len(teams)) for team in teams)


def report(found: Findings) -> str:
    times = {
        "submit, one client": found.free_submit,
        "submit to claim, a worker free": found.free_claim,
        "submit, all clients": found.submit,
        "submit to claim, all clients": found.claim,
    }
    rows = [[what, str(len(seconds)), *milliseconds(seconds)] for what, seconds in times.items()]
    fair = "no time at which all teams waited" if found.unfair is None else f"{100 * found.unfair:.1f} %"
    facts = [
        f"ended: {dict(found.ended)} of {len(found.submitted)} submitted in {found.seconds:.0f} s; lost: {found.lost}",
        f"attempts a job took: {dict(sorted(found.attempts.items()))}",
        f"runs: {found.runs.total()} of {len(found.runs)} attempts; attempts run twice: {found.run_twice}",
        f"largest distance of a team's share of starts from an equal one, while all waited: {fair}",
    ]
    return "\n".join([table(["what", "jobs", "p50 ms", "p99 ms", "most ms"], rows), "", *facts])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--teams", type=int, default=4)
    parser.add_argument("--rate", type=float, default=20, help="jobs a second of all clients; 0: as fast as they can")
    parser.add_argument("--alone", type=int, default=100, help="jobs sent one at a time first")
    parser.add_argument("--pooled", action="store_true", help="workers reach PostgreSQL through PgBouncer")
    asked = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="secateur-load-") as folder,
        Fleet(Path(folder), asked.workers, pooled=asked.pooled) as fleet,
    ):
        keys = fleet.keys(asked.teams, asked.clients)
        say(f"{asked.workers} workers, {asked.clients} clients of {asked.teams} teams at {fleet.url}")
        found = measure(fleet, keys, jobs=asked.jobs, rate=asked.rate, alone=asked.alone, say=say)
        say(report(found))
    return int(found.lost > 0 or found.run_twice > 0)


if __name__ == "__main__":
    sys.exit(main())
