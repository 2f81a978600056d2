"""The faults: a row each, which says when and where it may strike, and what strikes when its context is entered and is
healed when it is left.
"""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import redis

from bench.chaos.bystanders import started
from bench.chaos.clocks import wrong_clock
from bench.chaos.fleet import Fleet, Services
from bench.chaos.installation import Installation
from bench.chaos.outsiders import FILES, ROWS
from bench.chaos.processes import Database
from bench.chaos.store import Mood
from tests.worker.filling_runner import fill

WHOSE_JOB: Final = "worker-*"
"""The worker whose job is in the stage that is aimed at: known when the time has come."""
STOP_SECONDS = {"worker": 40, "redis": 10, "dispatcher": 10, "api": 30}
"""Until `docker compose` kills what it stops."""
JUMPS_AFTER_SECONDS = 6.0
"""Until a process that was started for it is at work, and its clock jumps."""
_CLOCKS: Final = ("trigger", "webhook", "sweep", "awaiting", "publication")
_LOST_DEVICE = (
    "worker_of_a_lost_device",
    "default",
    "cuda",
    "bed",
    "1",
    "draining",
    "the device does not answer: lost",
)


@dataclass(frozen=True)
class Fault:
    """One fault. It comes `pause` seconds after the one before has healed, or, where it `joins`, has begun; then, with
    a `stage`, once a job is in it. `target` may be `WHOSE_JOB`. `shift` is what a clock is wrong by, in seconds.
    """

    number: int
    kind: str
    target: str
    seconds: float
    pause: float = 0.0
    stage: str | None = None
    joins: bool = False
    shift: float = 0.0

    @property
    def title(self) -> str:
        return f"fault {self.number} ({self.kind})"


Strike = Callable[[Fleet, Fault], AbstractContextManager[None]]
"""`target` of the fault is a part of the fleet: `WHOSE_JOB` is resolved."""
Choose = Callable[[random.Random, Services, str], str]
"""Chooses a target; it is told a worker, which is `WHOSE_JOB` where the fault is aimed at a stage."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault, and how often it comes against the others: never in a run's schedule where its `share` is 0.

    `seconds` are the shortest, the longest, and the power of the skew: at 8 half of all are within the shortest 250th,
    and one in five beyond a sixth. One that `is_aimed` may wait for a job's stage. Of one that is `alone` nobody else
    may notice anything: what bystanders are told is of nothing else, so it joins no fault. A clock is wrong by
    something in the range of `shift`, in seconds.
    """

    share: int
    strike: Strike
    target: str | Choose
    seconds: tuple[float, float, float] = (0.0, 0.0, 1.0)
    is_aimed: bool = True
    is_alone: bool = False
    shift: tuple[float, float] | None = None


@contextmanager
def _healed(strike: Callable[[], object], heal: Callable[[], object]) -> Iterator[None]:
    strike()
    try:
        yield
    finally:
        heal()


def _kill(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    """Kill it with SIGKILL; it is started again. What belongs to a worker is started by the worker, when it has to."""
    if "/" in fault.target:
        _each(fleet.processes(fault.target), psutil.Process.kill)
    else:
        fleet.parts[fault.target].kill()
    return nullcontext()


def _freeze(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    frozen = fleet.processes(fault.target)
    return _healed(lambda: _each(frozen, psutil.Process.suspend), lambda: _each(frozen, psutil.Process.resume))


def _each(processes: list[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            act(process)


@contextmanager
def _stopped(fleet: Fleet, name: str) -> Iterator[None]:
    """Stop it with SIGTERM and start it anew, as an upgrade does."""
    part = fleet.parts[name]
    with part.alone, _healed(lambda: part.stop(STOP_SECONDS[name.partition("-")[0]]), part.start):
        yield


def _restart(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    return _stopped(fleet, fault.target)


@contextmanager
def _restart_emptied(fleet: Fleet, fault: Fault) -> Iterator[None]:
    with _stopped(fleet, fault.target):
        for left in fleet.home(fault.target).iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def _postgres(stop: Callable[[Database], None]) -> Strike:
    @contextmanager
    def strike(fleet: Fleet, fault: Fault) -> Iterator[None]:
        with fleet.database.alone, _healed(lambda: stop(fleet.database), fleet.database.start):
            yield

    return strike


def _wire_silent(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    wire = fleet.wires[fault.target]
    return _healed(wire.fall_silent, wire.heal)


def _disk_full(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    home = fleet.home(fault.target)
    return _healed(lambda: fill(home), lambda: (home / "of-somebody-else").unlink(missing_ok=True))


@contextmanager
def _wrong_clock(fleet: Fleet, fault: Fault, shift: str | Path) -> Iterator[None]:
    part = fleet.parts[fault.target]
    wrong = wrong_clock(shift)
    with part.alone:
        with _stopped(fleet, fault.target):
            part.variables = wrong
        try:
            yield
        finally:
            with _stopped(fleet, fault.target):
                part.variables = {}


def _clock_shift(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    """Restart it with a clock that is wrong, and again with the right one."""
    return _wrong_clock(fleet, fault, f"{fault.shift:+.0f}")


@contextmanager
def _clock_jump(fleet: Fleet, fault: Fault) -> Iterator[None]:
    """Have its clock jump while it is at work, and back."""
    shift = fleet.folder / f"{fault.target}.clock"
    shift.write_text("+0")
    with _wrong_clock(fleet, fault, shift):
        time.sleep(JUMPS_AFTER_SECONDS)
        with _healed(lambda: shift.write_text(f"{fault.shift:+.0f}"), lambda: shift.write_text("+0")):
            yield
        time.sleep(JUMPS_AFTER_SECONDS)


def _store(mood: Mood) -> Strike:
    """Have the store in this mood: one at a time, of two the later waits."""

    @contextmanager
    def strike(fleet: Fleet, fault: Fault) -> Iterator[None]:
        turn = fleet.store_mood.write_text
        with fleet.parts[fault.target].alone, _healed(lambda: turn(mood), lambda: turn("well")):
            yield

    return strike


def _hooks_hang(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    fleet.hooks.hang(fault.seconds)
    return nullcontext()


@contextmanager
def _poisoned_row(fleet: Fleet, fault: Fault) -> Iterator[None]:
    asking = fleet.bystanders.asking(fault.title, *_CLOCKS)
    fleet.outsiders.poison(fault.target)
    with asking:
        yield


def _hub_away(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    """Have connections to the hub refused."""
    part = fleet.parts[fault.target]
    return _without_hub(fleet, fault, lambda: part.stop(0), part.start)


def _hub_silent(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    """Have connections to the hub accepted, and never answered."""
    [process] = fleet.processes(fault.target)
    return _without_hub(fleet, fault, process.suspend, process.resume)


@contextmanager
def _without_hub(
    fleet: Fleet, fault: Fault, leave: Callable[[], object], return_: Callable[[], object]
) -> Iterator[None]:
    triggers = fleet.outsiders.add_hub_triggers()
    asking = fleet.bystanders.asking(fault.title, "health", "call", *_CLOCKS)  # prepared while all is well
    with fleet.parts[fault.target].alone, _healed(leave, return_):
        fleet.outsiders.make_due(triggers)
        with asking:
            yield


@contextmanager
def _slow_parser(fleet: Fleet, fault: Fault) -> Iterator[None]:
    """Upload files that are slow to check, all at the same time."""
    threads = [threading.Thread(target=fleet.outsiders.upload, args=(what,), daemon=True) for what in FILES]
    with fleet.bystanders.asking(fault.title, "health", "call"), started(threads, threading.Event()):
        yield


@contextmanager
def _freezing_client(fleet: Fleet, fault: Fault) -> Iterator[None]:
    api = fleet.installation.apis[fleet.services.apis.index(fault.target)]
    with fleet.bystanders.asking(fault.title, "health", "call"), fleet.outsiders.sending_nested_lists(api):
        yield


@contextmanager
def redis_full(url: str) -> Iterator[None]:
    """Give Redis less memory than it uses."""
    with redis.Redis.from_url(url) as client:
        had = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) // 2)
        try:
            yield
        finally:
            client.config_set("maxmemory", had)


@contextmanager
def locked(installation: Installation, statement: str) -> Iterator[None]:
    """Hold what a statement locks, as a transaction that somebody forgot does."""
    with installation.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute(statement.encode())
        yield


def _device_failed(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    """Have a worker whose device fell off the bus, as its heartbeat writes it: the machine may have no device."""
    change = fleet.installation.change_rows
    insert = "INSERT INTO workers (id, queue, device, hostname, pid, state, reason) VALUES (%s, %s, %s, %s, %s, %s, %s)"
    return _healed(
        lambda: change(insert, *_LOST_DEVICE), lambda: change("DELETE FROM workers WHERE id = %s", _LOST_DEVICE[0])
    )


TEAMS_HELD = "SELECT FROM teams FOR UPDATE"
"""Holds every team's row: no job is claimed."""
JOBS_HELD = "LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"
"""Holds the table of jobs against readers, so that a list of them waits for its limit."""


def _any_process(chance: random.Random, services: Services, worker: str) -> str:
    if worker == WHOSE_JOB:
        return chance.choice([worker, f"{worker}/pool", f"{worker}/runner", f"{worker}/runner"])
    return chance.choice([*services.apis, *services.dispatchers, worker, f"{worker}/pool"])


def _any_wire(chance: random.Random, services: Services, worker: str) -> str:
    end = worker if worker == WHOSE_JOB else chance.choice(services.all)
    return f"{end}:{chance.choice(['postgres', 'postgres', 'redis'])}"


def _any_clock(chance: random.Random, services: Services, worker: str) -> str:
    return worker if worker == WHOSE_JOB else chance.choice([*services.dispatchers, *services.workers])


def _any_worker(chance: random.Random, services: Services, worker: str) -> str:
    return worker


def _any_service(chance: random.Random, services: Services, worker: str) -> str:
    return chance.choice(services.all)


def _any_api(chance: random.Random, services: Services, worker: str) -> str:
    return chance.choice(services.apis)


def _any_row(chance: random.Random, services: Services, worker: str) -> str:
    return chance.choice(list(ROWS))


KINDS: Final = {
    "kill": Kind(3, _kill, _any_process),
    "freeze": Kind(3, _freeze, _any_process, (1.0, 90.0, 8.0)),
    "wire_silent": Kind(2, _wire_silent, _any_wire, (1.0, 45.0, 4.0)),
    "redis_restart_kept": Kind(1, _restart, "redis", (0.0, 6.0, 1.0)),
    "redis_restart_emptied": Kind(1, _restart_emptied, "redis", (0.0, 6.0, 1.0)),
    "postgres_fast": Kind(1, _postgres(Database.stop_fast), "postgres", (0.0, 5.0, 2.0)),
    "postgres_immediate": Kind(1, _postgres(Database.stop_at_once), "postgres", (0.0, 5.0, 2.0)),
    "disk_full": Kind(1, _disk_full, _any_worker, (2.0, 15.0, 2.0)),
    "clock_shift": Kind(1, _clock_shift, _any_clock, (4.0, 12.0, 1.0), shift=(180.0, 86400.0)),
    "clock_jump": Kind(1, _clock_jump, _any_service, (6.0, 15.0, 1.0), is_aimed=False, shift=(3600.0, 3600.0)),
    "s3_error500": Kind(1, _store("error500"), "store", (1.0, 15.0, 2.0)),
    "s3_slow": Kind(1, _store("slow"), "store", (2.0, 15.0, 2.0)),
    "s3_half_body": Kind(1, _store("half_body"), "store", (1.0, 10.0, 1.0)),
    "hooks_hang": Kind(1, _hooks_hang, "hooks", (2.0, 20.0, 1.0), is_aimed=False),
    "drain": Kind(1, _restart, _any_worker),
    "poisoned_row": Kind(1, _poisoned_row, _any_row, (1.0, 2.0, 1.0), is_aimed=False, is_alone=True),
    "hub_away": Kind(1, _hub_away, "hub", (10.0, 30.0, 2.0), is_aimed=False, is_alone=True),
    "hub_silent": Kind(1, _hub_silent, "hub", (10.0, 30.0, 2.0), is_aimed=False, is_alone=True),
    "slow_parser": Kind(1, _slow_parser, "uploads", (2.0, 5.0, 1.0), is_aimed=False, is_alone=True),
    "freezing_client": Kind(1, _freezing_client, _any_api, (5.0, 15.0, 1.0), is_aimed=False, is_alone=True),
    "redis_full": Kind(0, lambda fleet, fault: redis_full(fleet.redis_url), "redis"),
    "team_held": Kind(0, lambda fleet, fault: locked(fleet.installation, TEAMS_HELD), "postgres"),
    "jobs_held": Kind(0, lambda fleet, fault: locked(fleet.installation, JOBS_HELD), "postgres"),
    "device_failed": Kind(0, _device_failed, "postgres"),
}
SCHEDULED: Final = tuple(name for name, kind in KINDS.items() if kind.share)
"""Kinds that come in a run; the others are faults of alerts alone."""
