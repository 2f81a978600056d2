"""The faults: a row each, which says where it may strike, and what strikes when its context is entered and is healed
when it is left; and the schedule of a run, decided from its seed alone. Some come from outside: rows of a team that
nobody can carry out, its files that are slow to check, and clients without a key.
"""

import itertools
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, TypeVar

import httpx
import psutil

from bench.chaos.clients import HALF, MODEL
from bench.chaos.fleet import APIS, DISPATCHERS, WORKERS, Fleet
from bench.chaos.installation import NOBODYS_QUEUE, OUTSIDERS, Installation
from bench.chaos.processes import Database
from bench.chaos.store import Mood
from core.service.jobs.states import STAGES
from tests.worker.clocks import wrong_clock
from tests.worker.filling_runner import fill

POISONS: Final = {
    "triggers": """UPDATE triggers SET template = template || '{"sparsity": 7}', next_fire_at = clock_timestamp()
        WHERE id = %s""",
    "jobs": """UPDATE jobs SET awaits_discovery = 'discovery_none', available_at = '9000-01-01', dispatched_at = NULL,
        body = body || '{"sparsity": 7}' WHERE id = %s""",
}
"""Spoils a row of this kind. The discovery of the job's model is over: the dispatcher resolves it."""
_NEST: Final = b"[" * 30 + b"]" * 30
_NESTED: Final = b'{"parameters":[' + b",".join([_NEST] * 17_000) + b"]}"
"""Body of the greatest length and depth that a request may have."""
_SLOW: Final = ("{" + ",".join(f'"{number}":0' for number in range(40_000)) + ',"39999":0}').encode()
"""A config in which the last of many names is given twice."""
_ANSWER_SECONDS = 60.0
_numbers = itertools.count(1)
WHOSE_JOB: Final = "worker-*"
"""The worker whose job is in the stage that is aimed at: known when the time has come."""
_STOP_SECONDS = 40.0
"""Until `docker compose` kills a worker that it stops; other parts take less."""
_UNAIMED = 4
"""Faults at any moment, against one for each stage."""
_JOINED = 0.15
_PAUSE_SECONDS = 3.0
_SHIFT_SECONDS = 180.0, 86400.0
Item = TypeVar("Item")


def poison(installation: Installation, what: str) -> None:
    """Make a row of this kind and spoil it behind the service's back. Raises httpx.HTTPError."""
    job = {"model": MODEL, "queue": NOBODYS_QUEUE, **HALF}
    trigger = {"name": f"yearly-{next(_numbers)}", "template": job, "schedule": {"cron": "0 0 1 1 *"}}
    body = {"jobs": job, "triggers": trigger}[what]
    row = installation.request(OUTSIDERS, "POST", f"/v1/{what}", body)["id"]
    with installation.connect() as connection:
        connection.execute(POISONS[what].encode(), [row])
    installation.journal.note("poisoned", what=what, id=row)


@contextmanager
def at_once(count: int, act: Callable[[], object]) -> Iterator[None]:
    """Have so many threads act again and again inside the context; at its end they are waited for."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.1):
            act()

    threads = [threading.Thread(target=go_on, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def send_nested_lists(api: str) -> None:
    """Send the longest and deepest body, without a key, whatever is answered."""
    with suppress(httpx.TransportError):
        httpx.post(f"{api}/v1/jobs", content=_NESTED, headers={"Content-Type": "application/json"}, timeout=60)


def upload(installation: Installation) -> None:
    """Send a file that is slow to check and note what was answered."""
    files = [_facts("config.json", _SLOW), _facts("model.safetensors", b"not sent")]
    body = {"kind": "model", "name": f"hostile-{next(_numbers)}", "files": files}
    began, status, code = time.monotonic(), 0, ""
    try:
        with installation.http(OUTSIDERS, seconds=_ANSWER_SECONDS) as client:
            path = f"/v1/uploads/{client.post('/v1/uploads', json=body).raise_for_status().json()['id']}"
            binary = {"Content-Type": "application/octet-stream"}
            answer = client.put(f"{path}/files/config.json?offset=0", content=_SLOW, headers=binary)
            client.delete(path)
        status, code = answer.status_code, answer.json()["code"]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        code = f"{type(error).__name__}: {error}"
    installation.journal.note("hostile", status=status, code=code, seconds=time.monotonic() - began)


def _facts(path: str, content: bytes) -> dict[str, Any]:
    return {"path": path, "bytes": len(content), "sha256": sha256(content).hexdigest()}


@dataclass(frozen=True)
class Fault:
    """One fault. It comes `pause` seconds after the one before has healed, or, where it `joins`, has begun; then, with
    a `stage`, once a job is in it. `target` may be `WHOSE_JOB`. `shift` is what a clock is wrong by, in seconds.
    """

    number: int
    kind: str
    target: str
    seconds: float
    pause: float
    stage: str | None
    joins: bool
    shift: float


Strike = Callable[[Fleet, Fault], AbstractContextManager[None]]
"""`target` of the fault is a part of the fleet: `WHOSE_JOB` is resolved."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault, how often it comes against the others, and the shortest and longest `seconds` it lasts.

    `targets` name parts of the fleet: `api`, `dispatcher` and `worker` stand for any of them. What is aimed at a stage
    takes the worker of its job, where it takes workers at all.
    """

    share: int
    strike: Strike
    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)


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
    with part.alone, _healed(lambda: part.stop(_STOP_SECONDS), part.start):
        yield


def _restart(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    return _stopped(fleet, fault.target)


@contextmanager
def _restart_emptied(fleet: Fleet, fault: Fault) -> Iterator[None]:
    with _stopped(fleet, fault.target):
        for left in (fleet.folder / fault.target).iterdir():
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
    home = fleet.folder / fault.target
    return _healed(lambda: fill(home), lambda: (home / "of-somebody-else").unlink(missing_ok=True))


@contextmanager
def _clock_shift(fleet: Fleet, fault: Fault) -> Iterator[None]:
    """Restart it with a clock that is wrong, and again with the right one."""
    part = fleet.parts[fault.target]
    with part.alone:
        with _stopped(fleet, fault.target):
            part.variables = wrong_clock(f"{fault.shift:+.0f}")
        try:
            yield
        finally:
            with _stopped(fleet, fault.target):
                part.variables = {}


def _store(mood: Mood) -> Strike:
    """Have the store in this mood: one at a time, of two the later waits."""

    @contextmanager
    def strike(fleet: Fleet, fault: Fault) -> Iterator[None]:
        turn = fleet.store_mood.write_text
        with fleet.parts[fault.target].alone, _healed(lambda: turn(mood), lambda: turn("well")):
            yield

    return strike


def _poisoned_row(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    poison(fleet.installation, fault.target)
    return nullcontext()


def _slow_parser(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    return at_once(4, lambda: upload(fleet.installation))


def _freezing_client(fleet: Fleet, fault: Fault) -> AbstractContextManager[None]:
    """Send hostile bodies over many connections."""
    api = fleet.installation.apis[APIS.index(fault.target)]
    return at_once(20, lambda: send_nested_lists(api))


_WORKERS = ("worker", "worker/pool", "worker/runner", "worker/runner")
_WIRES = tuple(f"{name}:{end}" for name in ("api", "dispatcher", "worker", "worker") for end in ("postgres", "redis"))

KINDS: Final = {
    "kill": Kind(3, _kill, ("api", "api", "dispatcher", *_WORKERS)),
    "freeze": Kind(3, _freeze, ("api", "api", "dispatcher", *_WORKERS), (1.0, 30.0)),
    "wire_silent": Kind(2, _wire_silent, _WIRES, (1.0, 30.0)),
    "redis_restart_kept": Kind(1, _restart, ("redis",), (0.0, 6.0)),
    "redis_restart_emptied": Kind(1, _restart_emptied, ("redis",), (0.0, 6.0)),
    "postgres_fast": Kind(1, _postgres(Database.stop_fast), ("postgres",), (0.0, 5.0)),
    "postgres_immediate": Kind(1, _postgres(Database.stop_at_once), ("postgres",), (0.0, 5.0)),
    "disk_full": Kind(1, _disk_full, ("worker",), (2.0, 15.0)),
    "clock_shift": Kind(1, _clock_shift, ("dispatcher", "worker"), (4.0, 12.0)),
    "s3_error500": Kind(1, _store("error500"), ("store",), (1.0, 15.0)),
    "s3_slow": Kind(1, _store("slow"), ("store",), (2.0, 15.0)),
    "s3_half_body": Kind(1, _store("half_body"), ("store",), (1.0, 10.0)),
    "drain": Kind(1, _restart, ("worker",)),
    "poisoned_row": Kind(1, _poisoned_row, tuple(POISONS)),
    "slow_parser": Kind(1, _slow_parser, ("uploads",), (2.0, 5.0)),
    "freezing_client": Kind(1, _freezing_client, ("api",), (5.0, 15.0)),
}


def schedule(seed: int, faults: int, kinds: Collection[str]) -> list[Fault]:
    """Return so many faults of these kinds: the same for the same seed, whatever the run does."""
    chance = random.Random(seed)
    dealt = _dealt(chance, [name for name, kind in KINDS.items() if name in kinds for _ in range(kind.share)])
    stages = _dealt(chance, [*STAGES, *[None] * _UNAIMED])
    made: list[Fault] = []
    for number in range(1, faults + 1):
        name, stage = next(dealt), next(stages)
        target = _target(chance, KINDS[name].targets, is_aimed=stage is not None)
        seconds = round(chance.uniform(*KINDS[name].seconds), 2)
        pause = round(_PAUSE_SECONDS * chance.random(), 2)
        joins = bool(made) and not made[-1].joins and chance.random() < _JOINED
        least, most = _SHIFT_SECONDS  # small and large ones are equally likely, forwards or backwards
        shift = round(least * (most / least) ** chance.random()) * chance.choice([-1.0, 1.0])
        made.append(Fault(number, name, target, seconds, pause, stage, joins, shift))
    return made


def _dealt(chance: random.Random, cards: Sequence[Item]) -> Iterator[Item]:
    """Deal all cards in a random order, again and again: each comes as often as it should in any run that is long."""
    while True:
        yield from chance.sample(cards, len(cards))


def _target(chance: random.Random, targets: Sequence[str], *, is_aimed: bool) -> str:
    workers = [each for each in targets if each.startswith("worker")]
    name, rest = re.findall(r"^(\w+)(.*)", chance.choice(workers if is_aimed and workers else targets))[0]
    parts = {"api": APIS, "dispatcher": DISPATCHERS, "worker": (WHOSE_JOB,) if is_aimed else WORKERS}
    return f"{chance.choice(parts.get(name, (name,)))}{rest}"
