"""One run: a fleet, its clients, a seed's faults one after the other, and what the checker says afterwards."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from bench.chaos.aim import StageWatch
from bench.chaos.checker import Violation, check, timeline
from bench.chaos.clocks import wrong_clock
from bench.chaos.faults import KINDS
from bench.chaos.fleet import Fleet
from bench.chaos.journal import Journal
from bench.chaos.schedule import ALL, SHARES, WHOSE_JOB, Fault, Services, schedule
from bench.chaos.traffic import CLIENTS_OF_TEAM, Receiver, Traffic

AIM_SECONDS = 30
"""Until a fault stops waiting for its stage, and comes all the same."""
RECOVERY_SECONDS = 90
BOUND_SECONDS = 120
"""After the last fault: until everything has ended by itself."""
_LOOK_SECONDS = 0.25
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
    kinds: Collection[str] = SHARES.keys(),
    is_pooled: bool = False,
) -> Result:
    """Have so many faults of these kinds come, fewer where `seconds` are over before. `folder` must be new, and takes
    everything.
    """
    wrong_clock("+0")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    result = Result(seed, faults, sources())
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver(folder))
        fleet = stack.enter_context(Fleet(folder, receiver, services, is_pooled=is_pooled))
        journal = fleet.journal
        watch = stack.enter_context(StageWatch(fleet.installation.database_url, fleet.worker_of))
        with Traffic(fleet.installation, journal, seed, clients_of_team) as traffic:
            _warm(watch)
            course = _Course(fleet, watch, journal, result, say)
            course.run(schedule(seed, faults, services, kinds), seconds)
            traffic.stop()
        found = check(
            fleet.installation,
            journal.path,
            bound_seconds=BOUND_SECONDS,
            expected_pids=fleet.expected_pids(),
            run_id=fleet.run_id,
        )
        result.violations += _told(found, journal)
    return result


def _told(found: Sequence[Violation], journal: Journal) -> Iterator[str]:
    """Violations in words, the first of each job with its timeline."""
    jobs: set[str] = set()
    for each in found:
        if each.job is None or each.job in jobs:
            yield f"{each.promise}: {each.text}"
        else:
            jobs.add(each.job)
            yield f"{each.promise}: {each.text}\n{timeline(each.job, journal.path)}"


def _warm(watch: StageWatch) -> None:
    """Wait until a first job has succeeded: from then on there are jobs in all stages."""
    began = time.time()
    while not watch.has_succeeded_since(0):
        if time.time() > began + _WARM_SECONDS:
            raise TimeoutError("no job succeeded before the first fault: the clients or the fleet do not work")
        time.sleep(_LOOK_SECONDS)


class _Course:
    """The faults of a run, as they come. One that joins another comes while that is on; then both are waited for."""

    def __init__(self, fleet: Fleet, watch: StageWatch, journal: Journal, result: Result, say: Say) -> None:
        self._fleet = fleet
        self._watch = watch
        self._journal = journal
        self._result = result
        self._say = say
        self._healed: list[Done] = []
        self._failures: list[BaseException] = []

    def run(self, faults: Sequence[Fault], seconds: float | None) -> None:
        ends = None if seconds is None else time.monotonic() + seconds
        for together in _grouped(faults):
            if ends is not None and time.monotonic() > ends:
                return
            threads = []
            for fault in together:
                time.sleep(fault.pause)
                thread = threading.Thread(target=self._try, args=(fault,), name=f"fault {fault.number}", daemon=True)
                thread.start()
                threads.append(thread)
            for thread in threads:
                thread.join()
            if self._failures:
                raise self._failures[0]
            recovery = self._recovery(together)
            came = [replace(done, recovery_seconds=recovery) for done in self._healed]
            self._result.faults += sorted(came, key=lambda done: done.number)
            self._healed.clear()

    def _try(self, fault: Fault) -> None:
        try:
            self._do(fault)
        except BaseException as error:
            error.add_note(f"fault {fault.number}: {fault}")
            self._failures.append(error)

    def _do(self, fault: Fault) -> None:
        target, stage, job = self._aimed(fault)
        facts = {"number": fault.number, "name": fault.kind, "target": target, "stage": stage, "seconds": fault.seconds}
        self._journal.note("fault", phase="begins", job=job, shift=fault.shift, **facts)
        with KINDS[fault.kind](self._fleet, fault, target):
            where = "" if stage is None else f", {stage} of {job}"
            self._say(f"{fault.number:4d}  {fault.kind} {target}, {fault.seconds:g} s{where}")
            time.sleep(fault.seconds)
        self._journal.note("fault", phase="healed", **facts)
        self._healed.append(Done(fault.number, fault.kind, target, stage, job, fault.seconds, None))

    def _aimed(self, fault: Fault) -> tuple[str, str | None, str | None]:
        """Target, stage and job, as soon as a job is in the stage."""
        running = None if fault.stage is None else self._watch.wait_for(fault.stage, AIM_SECONDS)
        if running is not None:
            return fault.target.replace(WHOSE_JOB, running.worker), fault.stage, running.job
        workers = self._fleet.services.workers
        return fault.target.replace(WHOSE_JOB, workers[fault.number % len(workers)]), None, None

    def _recovery(self, faults: Sequence[Fault]) -> float | None:
        """Wait for it; the seconds it took, None where it took too long."""
        began, healed = time.monotonic(), time.time()
        while not (self._fleet.is_ready() and self._watch.has_succeeded_since(healed)):
            if time.monotonic() > began + RECOVERY_SECONDS:
                told = " and ".join(f"fault {fault.number} ({fault.kind})" for fault in faults)
                self._result.violations.append(f"recovery: nothing had recovered {RECOVERY_SECONDS} s after {told}")
                return None
            time.sleep(_LOOK_SECONDS)
        seconds = round(time.monotonic() - began, 2)
        self._journal.note("recovered", numbers=[fault.number for fault in faults], seconds=seconds)
        return seconds


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
