"""The faults: each is done to the installation when its context is entered, and healed when it is left."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from bench.chaos.clocks import wrong_clock
from bench.chaos.fleet import Fleet
from bench.chaos.gate import Mood
from bench.chaos.keeping import Database
from bench.chaos.outside import freezing_client, hub_away, hub_silent, poisoned_row, slow_parser
from bench.chaos.schedule import Fault
from tests.worker.filling_runner import fill

STOP_SECONDS = {"worker": 40, "redis": 10, "dispatcher": 10, "api": 30}
"""Until `docker compose` kills what it stops."""
JUMPS_AFTER_SECONDS = 6.0
"""Until a process that was started for it is at work, and its clock jumps."""

Apply = Callable[[Fleet, Fault, str], AbstractContextManager[None]]
"""`target` is the fault's, `WHOSE_JOB` resolved."""


@contextmanager
def kill(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    """Kill it with SIGKILL; it is started again. What belongs to a worker is started by the worker, when it has to."""
    if "/" in target:
        for process in fleet.processes(target):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    else:
        fleet.parts[target].kill()
    yield


@contextmanager
def freeze(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    frozen = fleet.processes(target)
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def restart(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    """Stop it with SIGTERM and start it anew, as an upgrade does."""
    with _stopped(fleet, target):
        yield


@contextmanager
def redis_restart_emptied(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    with _stopped(fleet, target):
        for left in (fleet.folder / "redis").iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


@contextmanager
def postgres(fleet: Fleet, fault: Fault, target: str, *, stop: Callable[[Database], None]) -> Iterator[None]:
    with fleet.database.alone:
        stop(fleet.database)
        try:
            yield
        finally:
            fleet.database.start()


@contextmanager
def wire_silent(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    wire = fleet.wires[target]
    wire.fall_silent()
    try:
        yield
    finally:
        wire.heal()


@contextmanager
def disk_full(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    home = fleet.home(target)
    fill(home)
    try:
        yield
    finally:
        (home / "of-somebody-else").unlink(missing_ok=True)


@contextmanager
def clock_shift(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    """Restart it with a clock that is wrong, and again with the right one."""
    with _clock(fleet, target, f"{fault.shift:+.0f}"):
        yield


@contextmanager
def clock_jump(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    """Have its clock jump while it is at work, and back."""
    shift = fleet.folder / f"{target}.clock"
    shift.write_text("+0")
    with _clock(fleet, target, shift):
        time.sleep(JUMPS_AFTER_SECONDS)
        shift.write_text(f"{fault.shift:+.0f}")
        try:
            yield
        finally:
            shift.write_text("+0")
            time.sleep(JUMPS_AFTER_SECONDS)


@contextmanager
def store(fleet: Fleet, fault: Fault, target: str, *, mood: Mood) -> Iterator[None]:
    """Have the way to the store in this mood: one at a time, of two the later waits."""
    with fleet.gate.alone:
        fleet.gate.turn(mood)
        try:
            yield
        finally:
            fleet.gate.turn("well")


@contextmanager
def hooks_hang(fleet: Fleet, fault: Fault, target: str) -> Iterator[None]:
    fleet.hooks.hang(fault.seconds)
    yield


KINDS: Final[dict[str, Apply]] = {
    "kill": kill,
    "freeze": freeze,
    "redis_restart_kept": restart,
    "redis_restart_emptied": redis_restart_emptied,
    "postgres_fast": partial(postgres, stop=Database.stop_fast),
    "postgres_immediate": partial(postgres, stop=Database.stop_at_once),
    "wire_silent": wire_silent,
    "disk_full": disk_full,
    "clock_shift": clock_shift,
    "clock_jump": clock_jump,
    "s3_error500": partial(store, mood="error500"),
    "s3_slow": partial(store, mood="slow"),
    "s3_half_body": partial(store, mood="half_body"),
    "hooks_hang": hooks_hang,
    "drain": restart,
    "poisoned_row": poisoned_row,
    "hub_away": hub_away,
    "hub_silent": hub_silent,
    "slow_parser": slow_parser,
    "freezing_client": freezing_client,
}


@contextmanager
def _clock(fleet: Fleet, target: str, shift: str | Path) -> Iterator[None]:
    part = fleet.parts[target]
    wrong = wrong_clock(shift)
    with part.alone:
        with _stopped(fleet, target):
            part.variables = wrong
        try:
            yield
        finally:
            with _stopped(fleet, target):
                part.variables = {}


@contextmanager
def _stopped(fleet: Fleet, name: str) -> Iterator[None]:
    part = fleet.parts[name]
    with part.alone:
        part.stop(STOP_SECONDS[name.partition("-")[0]])
        try:
            yield
        finally:
            part.start()
