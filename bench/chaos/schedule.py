"""The faults of a run, decided from its seed alone."""

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from core.service.jobs.states import STAGES

WHOSE_JOB: Final = "worker-*"
"""The worker whose job is in the stage that is aimed at: known when the time has come."""

SHARES: Final = {
    "kill": 3,
    "freeze": 3,
    "wire_silent": 2,
    "redis_restart_kept": 1,
    "redis_restart_emptied": 1,
    "postgres_fast": 1,
    "postgres_immediate": 1,
    "disk_full": 1,
    "clock_shift": 1,
    "clock_jump": 1,
    "s3_error500": 1,
    "s3_slow": 1,
    "s3_half_body": 1,
    "hooks_hang": 1,
    "drain": 1,
    "poisoned_row": 1,
    "hub_away": 1,
    "hub_silent": 1,
    "slow_parser": 1,
    "freezing_client": 1,
}
"""How often each kind comes, against the others."""
ALONE: Final = {"poisoned_row", "hub_away", "hub_silent", "slow_parser", "freezing_client"}
"""Kinds that nobody else may notice: what bystanders are told is of nothing else, so they join no fault."""
POISONED_ROWS: Final = ("trigger", "sweep", "publication", "job")
_UNAIMED = 4
"""Faults at any moment, against one for each stage."""
_SECONDS: Final = {
    "freeze": (1.0, 90.0, 8.0),
    "wire_silent": (1.0, 45.0, 4.0),
    "redis_restart_kept": (0.0, 6.0, 1.0),
    "redis_restart_emptied": (0.0, 6.0, 1.0),
    "postgres_fast": (0.0, 5.0, 2.0),
    "postgres_immediate": (0.0, 5.0, 2.0),
    "disk_full": (2.0, 15.0, 2.0),
    "clock_shift": (4.0, 12.0, 1.0),
    "clock_jump": (6.0, 15.0, 1.0),
    "s3_error500": (1.0, 15.0, 2.0),
    "s3_slow": (2.0, 15.0, 2.0),
    "s3_half_body": (1.0, 10.0, 1.0),
    "hooks_hang": (2.0, 20.0, 1.0),
    "poisoned_row": (1.0, 2.0, 1.0),
    "hub_away": (10.0, 30.0, 2.0),
    "hub_silent": (10.0, 30.0, 2.0),
    "slow_parser": (2.0, 5.0, 1.0),
    "freezing_client": (5.0, 15.0, 1.0),
}
"""Shortest, longest, and the power of the skew: at 8 half of all are within the shortest 250th, and one in five beyond
a sixth."""
_SHIFTS = {"clock_shift": (180.0, 86400.0), "clock_jump": (3600.0, 3600.0)}
_JOINED = 0.15
_PAUSE_SECONDS = 3.0

Item = TypeVar("Item")


@dataclass(frozen=True)
class Services:
    """Names of the service processes of a fleet."""

    apis: tuple[str, ...] = ("api-0", "api-1")
    dispatchers: tuple[str, ...] = ("dispatcher-0", "dispatcher-1")
    workers: tuple[str, ...] = ("worker-0", "worker-1", "worker-2", "worker-3")

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.apis, *self.dispatchers, *self.workers)


ALL: Final = Services()
FEW: Final = Services(("api-0",), ("dispatcher-0",), ("worker-0", "worker-1"))
"""Enough for a job to go on elsewhere; ready in half the time."""


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
    shift: float = 0.0


def schedule(seed: int, faults: int, services: Services = ALL, kinds: Collection[str] = SHARES.keys()) -> list[Fault]:
    """Return so many faults of these kinds: the same for the same seed, whatever the run does. Fewer of a seed are its
    first.
    """
    chance = random.Random(seed)
    dealt = _dealt(chance, [kind for kind, share in SHARES.items() if kind in kinds for _ in range(share)])
    stages = _dealt(chance, [*STAGES, *[None] * _UNAIMED])
    made: list[Fault] = []
    for number in range(1, faults + 1):
        kind = next(dealt)
        stage = None if kind in {"hooks_hang", "clock_jump", *ALONE} else next(stages)
        shortest, longest, skew = _SECONDS.get(kind, (0.0, 0.0, 1.0))
        is_alone = not made or made[-1].joins or not ALONE.isdisjoint((kind, made[-1].kind))
        joins = not is_alone and chance.random() < _JOINED
        made.append(
            Fault(
                number=number,
                kind=kind,
                target=_target(chance, kind, stage, services),
                seconds=round(shortest + (longest - shortest) * chance.random() ** skew, 2),
                pause=round(_PAUSE_SECONDS * chance.random(), 2),
                stage=stage,
                joins=joins,
                shift=_shift(chance, kind) if kind in _SHIFTS else 0.0,
            )
        )
    return made


def _dealt(chance: random.Random, cards: Sequence[Item]) -> Iterator[Item]:
    """Deal all cards in a random order, again and again: each comes as often as it should in any run that is long."""
    while True:
        yield from chance.sample(cards, len(cards))


def _target(chance: random.Random, kind: str, stage: str | None, services: Services) -> str:
    worker = chance.choice(services.workers) if stage is None else WHOSE_JOB
    if kind in {"kill", "freeze"}:
        if stage is None:
            return chance.choice([*services.apis, *services.dispatchers, worker, f"{worker}/pool"])
        return chance.choice([worker, f"{worker}/pool", f"{worker}/runner", f"{worker}/runner"])
    if kind == "wire_silent":
        end = worker if stage is not None else chance.choice(services.all)
        return f"{end}:{chance.choice(['postgres', 'postgres', 'redis'])}"
    if kind == "clock_shift":
        return worker if stage is not None else chance.choice([*services.dispatchers, *services.workers])
    if kind == "clock_jump":
        return chance.choice(services.all)
    if kind in {"disk_full", "drain"}:
        return worker
    if kind == "poisoned_row":
        return chance.choice(POISONED_ROWS)
    if kind == "freezing_client":
        return chance.choice(services.apis)
    of = {"redis": "redis", "postgres": "postgres", "s3": "store", "hooks": "hooks", "hub": "hub", "slow": "uploads"}
    return of[kind.partition("_")[0]]


def _shift(chance: random.Random, kind: str) -> float:
    """Return a shift of a clock in seconds: small and large ones are equally likely, forwards or backwards."""
    least, most = _SHIFTS[kind]
    size = float(least * (most / least) ** chance.random())
    return round(size) * chance.choice([-1.0, 1.0])
