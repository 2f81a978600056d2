"""One run: a fleet, its clients, a seed's faults one after the other, and a look at the promises once the last fault is
healed and the clients have stopped.

The checker reads the API as the teams do, the audit trail among it, the bucket, the receiver, /proc, the workers'
folders and PostgreSQL's own views of who holds what. It knows nothing of the product's code or tables.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from bench.chaos.clients import traffic
from bench.chaos.faults import KINDS, WHOSE_JOB, Fault, schedule
from bench.chaos.fleet import WORKERS, Fleet
from bench.chaos.installation import LEASED, PROMISES, Installation, NoAnswer, Observation, Promise
from bench.chaos.promises import manifests_are_complete
from bench.parts import until
from tests.worker.clocks import wrong_clock

AIM_SECONDS = 30
"""Until a fault stops waiting for its stage, and comes all the same."""
RECOVERY_SECONDS = 90
BOUND_SECONDS = 120
"""After the last fault: until everything has ended by itself."""
_WARM_SECONDS = 180
_LOOK_SECONDS = 1.0
_AWAY = (NoAnswer, httpx.HTTPError, BotoCoreError, ClientError, psycopg.Error)
_RUNNING = """SELECT jobs.id, workers.pid FROM jobs JOIN workers ON workers.id = jobs.worker_id
WHERE jobs.status = 'running' AND jobs.stage = %s"""
_DONE = "SELECT EXISTS (SELECT FROM job_attempts WHERE ended_at > to_timestamp(%s) AND outcome = 'succeeded')"


@dataclass
class Result:
    """A run of a seed: the faults that came, with the stage of the job they hit; the `recoveries` of each, in seconds
    from its end, and that of a fault it joined, until every API said that jobs could be run, and one had succeeded; and
    the violations, in words.
    """

    faults: list[Fault] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def run(seed: int, faults: int, folder: Path, kinds: Collection[str]) -> Result:
    """Have so many faults of these kinds come. `folder` must be new, and takes everything."""
    wrong_clock("+0")  # is it installed?
    result = Result()
    with ExitStack() as cleanup:
        fleet = Fleet(folder, cleanup)
        with traffic(fleet.installation, seed):
            until(lambda: _has_succeeded_since(fleet, 0), _WARM_SECONDS, "a first job's success")
            for together in _grouped(schedule(seed, faults, kinds)):
                came, seconds = _strike(fleet, together)
                result.faults += came
                result.recoveries += [seconds] * len(came)
                if seconds > RECOVERY_SECONDS:
                    result.violations.append(f"recovery: nothing had recovered {seconds:.0f} s after {came}")
        result.violations += check(
            fleet.installation,
            bound_seconds=BOUND_SECONDS,
            expected_pids=fleet.expected_pids(),
            run_id=fleet.run_id,
        )
    return result


def _strike(fleet: Fleet, together: Sequence[Fault]) -> tuple[list[Fault], float]:
    """Have faults come that are on at the same time; return them, and the seconds until the fleet recovered."""
    with ThreadPoolExecutor(len(together)) as pool:
        coming = []
        for fault in together:
            time.sleep(fault.pause)
            coming.append(pool.submit(_do, fleet, fault))
    came = [each.result() for each in coming]
    began, healed = time.monotonic(), time.time()
    with suppress(TimeoutError):
        until(lambda: fleet.is_ready() and _has_succeeded_since(fleet, healed), RECOVERY_SECONDS)
    return came, time.monotonic() - began


def _do(fleet: Fleet, fault: Fault) -> Fault:
    """Have a fault come, as soon as a job is in its stage; return it with what it hit."""
    job, worker = None, WORKERS[fault.number % len(WORKERS)]
    if fault.stage is not None and (running := _wait_for(fleet, fault.stage)) is not None:
        job, worker = running
    fault = replace(fault, target=fault.target.replace(WHOSE_JOB, worker), stage=fault.stage if job else None)
    fleet.installation.journal.note("fault", phase="begins", job=job, fault=vars(fault))
    with KINDS[fault.kind].strike(fleet, fault):
        where = f", {fault.stage} of {job}" if job else ""
        print(f"{fault.number:4d}  {fault.kind} {fault.target}, {fault.seconds:g} s{where}", flush=True)
        time.sleep(fault.seconds)
    fleet.installation.journal.note("fault", phase="healed", fault=vars(fault))
    return fault


def _grouped(faults: Sequence[Fault]) -> Iterator[list[Fault]]:
    """Those that are on at the same time."""
    together: list[Fault] = []
    for fault in faults:
        if together and not fault.joins:
            yield together
            together = []
        together.append(fault)
    if together:
        yield together


def _wait_for(fleet: Fleet, stage: str) -> tuple[str, str] | None:
    """Return a job that is in the stage and the name of its worker, as soon as there is one; None where none was in
    time. A job whose worker is gone stays in its stage until its lease runs out, and is none.
    """
    deadline = time.monotonic() + AIM_SECONDS
    while time.monotonic() < deadline:
        with suppress(psycopg.Error), fleet.installation.connect() as connection:
            while time.monotonic() < deadline:
                for job, pid in connection.execute(_RUNNING, (stage,)).fetchall():
                    if (worker := fleet.worker_of(pid)) is not None:
                        return job, worker
                time.sleep(0.01)
        time.sleep(0.2)
    return None


def _has_succeeded_since(fleet: Fleet, moment: float) -> bool:
    """Tell whether a job succeeded after a moment in seconds since the epoch; no while the database is away."""
    with suppress(psycopg.Error), fleet.installation.connect() as connection:
        return connection.execute(_DONE, (moment,)).fetchall() == [(True,)]
    return False


def check(
    installation: Installation, *, bound_seconds: float, expected_pids: Collection[int], run_id: str
) -> list[str]:
    """Return what was broken, in words. Jobs have `bound_seconds` to end; what is to go by itself has as long again."""
    seen = Observation(installation, list(installation.journal.read()), run_id, expected_pids)
    with closing(seen.s3):
        try:
            found = list(manifests_are_complete(seen))
            _wait_for_ends(seen, time.time() + bound_seconds)
            seen.look()
            deadline = time.time() + bound_seconds
            return found + [text for promise in PROMISES for text in _broken(seen, promise, deadline)]
        except _AWAY as error:
            return [f"the installation does not answer: {type(error).__name__}: {error}"]


def _broken(seen: Observation, promise: Promise, deadline: float) -> Iterator[str]:
    """Yield what a promise finds broken and still does at the deadline, with its name. Jobs have ended: only what lies
    around them may change.
    """
    while (found := list(promise(seen))) and time.time() < deadline:
        time.sleep(_LOOK_SECONDS)
    yield from (f"{promise.__name__}: {text}" for text in found)


def _wait_for_ends(seen: Observation, deadline: float) -> None:
    """Wait until no job goes on."""
    statuses = ("queued", *LEASED)

    def goes_on() -> bool:
        asked = ((team, status) for team in seen.teams for status in statuses)
        return any(seen.json(team, "/v1/jobs", status=status, limit=1)["data"] for team, status in asked)

    while goes_on() and time.time() < deadline:
        time.sleep(_LOOK_SECONDS)
