"""One run: a fleet, its clients, a seed's faults one after the other, and what the checker says afterwards."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from bench.chaos import aim
from bench.chaos.checker import check, timeline
from bench.chaos.clocks import wrong_clock
from bench.chaos.faults import KINDS, SCHEDULED, WHOSE_JOB, Fault
from bench.chaos.fleet import ALL, Fleet, Services
from bench.chaos.observation import Violation
from bench.chaos.schedule import schedule
from bench.chaos.traffic import CLIENTS_OF_TEAM, Traffic
from bench.parts import until

AIM_SECONDS = 30
"""Until a fault stops waiting for its stage, and comes all the same."""
RECOVERY_SECONDS = 90
BOUND_SECONDS = 120
"""After the last fault: until everything has ended by itself."""
_ROOT = Path(__file__).parents[2]
_WARM_SECONDS = 180

Say = Callable[[str], None]


@dataclass(frozen=True)
class Done:
    """A fault as it came. `stage` is None where no job was in the stage it was aimed at. `recovery_seconds` is from its
    end, and that of a fault it joined, until every API said that jobs could be run, and one had succeeded; None where
    that took too long.
    """

    number: int
    kind: str
    target: str
    stage: str | None
    job: str | None
    seconds: float
    recovery_seconds: float | None


@dataclass
class Result:
    """A run of a seed, of which so many faults were `asked`, of the product with these `sources`. `violations` are in
    words, with their timelines.
    """

    seed: int
    asked: int
    sources: str
    faults: list[Done] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(asdict(self), indent=1))
        aside.rename(file)

    @classmethod
    def read(cls, file: Path) -> Self:
        said: dict[str, Any] = json.loads(file.read_text())
        return cls(**{**said, "faults": [Done(**each) for each in said["faults"]]})


def sources() -> str:
    """Return what tells one state of the product, and of what tries it, from another."""
    digest = hashlib.sha256()
    for folder in ("api", "core", "worker", "migrations", "bench/chaos"):
        for file in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:20]


def run(
    seed: int,
    faults: int,
    seconds: float | None,
    folder: Path,
    say: Say = lambda line: None,
    services: Services = ALL,
    clients_of_team: int = CLIENTS_OF_TEAM,
    kinds: Collection[str] = SCHEDULED,
    is_pooled: bool = False,
) -> Result:
    """Have so many faults of these kinds come, fewer where `seconds` are over before. `folder` must be new, and takes
    everything.
    """
    wrong_clock("+0")
    result = Result(seed, faults, sources())
    with Fleet(folder, services, is_pooled=is_pooled) as fleet:
        with Traffic(fleet.installation, fleet.journal, seed, clients_of_team):
            until(lambda: aim.has_succeeded_since(fleet, 0), _WARM_SECONDS, "a first job's success")
            ends = None if seconds is None else time.monotonic() + seconds
            for together in _grouped(schedule(seed, faults, services, kinds)):
                if ends is not None and time.monotonic() > ends:
                    break
                result.faults += _strike(fleet, together, say)
                if result.faults[-1].recovery_seconds is None:
                    told = " and ".join(fault.title for fault in together)
                    result.violations.append(f"recovery: nothing had recovered {RECOVERY_SECONDS} s after {told}")
        result.violations += _told(check_fleet(fleet, BOUND_SECONDS), fleet.journal.path)
    return result


def check_fleet(fleet: Fleet, bound_seconds: float) -> list[Violation]:
    """Return which promises the fleet has broken, once its clients have stopped."""
    return check(
        fleet.installation,
        fleet.journal.path,
        bound_seconds=bound_seconds,
        expected_pids=fleet.expected_pids(),
        run_id=fleet.run_id,
    )


def _told(found: Sequence[Violation], journal: Path) -> Iterator[str]:
    """Violations in words, the first of each job with its timeline."""
    jobs: set[str] = set()
    for each in found:
        if each.job is None or each.job in jobs:
            yield f"{each.promise}: {each.text}"
        else:
            jobs.add(each.job)
            yield f"{each.promise}: {each.text}\n{timeline(each.job, journal)}"


def _strike(fleet: Fleet, together: Sequence[Fault], say: Say) -> list[Done]:
    """Have faults come that are on at the same time, and wait until the fleet has recovered from them."""
    with ThreadPoolExecutor(len(together)) as pool:
        coming: list[Future[Done]] = []
        for fault in together:
            time.sleep(fault.pause)
            coming.append(pool.submit(_do, fleet, fault, say))
    done = [each.result() for each in coming]
    began, healed = time.monotonic(), time.time()
    recovery = None
    try:
        until(lambda: fleet.is_ready() and aim.has_succeeded_since(fleet, healed), RECOVERY_SECONDS)
        recovery = round(time.monotonic() - began, 2)
        fleet.journal.note("recovered", numbers=[each.number for each in done], seconds=recovery)
    except TimeoutError:
        pass
    return [replace(each, recovery_seconds=recovery) for each in done]


def _do(fleet: Fleet, fault: Fault, say: Say) -> Done:
    """Have a fault come, as soon as a job is in its stage."""
    running = None if fault.stage is None else aim.wait_for(fleet, fault.stage, AIM_SECONDS)
    workers = fleet.services.workers
    worker = workers[fault.number % len(workers)] if running is None else running.worker
    fault = replace(fault, target=fault.target.replace(WHOSE_JOB, worker), stage=fault.stage if running else None)
    job = running.job if running else None
    facts = {"number": fault.number, "name": fault.kind, "target": fault.target, "stage": fault.stage}
    fleet.journal.note("fault", phase="begins", job=job, shift=fault.shift, seconds=fault.seconds, **facts)
    with KINDS[fault.kind].strike(fleet, fault):
        where = "" if running is None else f", {fault.stage} of {job}"
        say(f"{fault.number:4d}  {fault.kind} {fault.target}, {fault.seconds:g} s{where}")
        time.sleep(fault.seconds)
    fleet.journal.note("fault", phase="healed", seconds=fault.seconds, **facts)
    return Done(fault.number, fault.kind, fault.target, fault.stage, job, fault.seconds, None)


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
