"""The faults of a run, decided from its seed alone."""

import random
from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from bench.chaos.faults import KINDS, SCHEDULED, WHOSE_JOB, Fault
from bench.chaos.fleet import ALL, Services
from core.service.jobs.states import STAGES

_UNAIMED = 4
"""Faults at any moment, against one for each stage."""
_JOINED = 0.15
_PAUSE_SECONDS = 3.0

Item = TypeVar("Item")


def schedule(seed: int, faults: int, services: Services = ALL, kinds: Collection[str] = SCHEDULED) -> list[Fault]:
    """Return so many faults of these kinds: the same for the same seed, whatever the run does. Fewer of a seed are its
    first.
    """
    chance = random.Random(seed)
    dealt = _dealt(chance, [name for name, kind in KINDS.items() if name in kinds for _ in range(kind.share)])
    stages = _dealt(chance, [*STAGES, *[None] * _UNAIMED])
    made: list[Fault] = []
    for number in range(1, faults + 1):
        name = next(dealt)
        kind = KINDS[name]
        stage = next(stages) if kind.is_aimed else None
        is_alone = not made or made[-1].joins or kind.is_alone or KINDS[made[-1].kind].is_alone
        joins = not is_alone and chance.random() < _JOINED
        worker = chance.choice(services.workers) if stage is None else WHOSE_JOB
        target = kind.target if isinstance(kind.target, str) else kind.target(chance, services, worker)
        shortest, longest, skew = kind.seconds
        seconds = round(shortest + (longest - shortest) * chance.random() ** skew, 2)
        pause = round(_PAUSE_SECONDS * chance.random(), 2)
        shift = 0.0 if kind.shift is None else _shift(chance, *kind.shift)
        made.append(Fault(number, name, target, seconds, pause, stage, joins, shift))
    return made


def _dealt(chance: random.Random, cards: Sequence[Item]) -> Iterator[Item]:
    """Deal all cards in a random order, again and again: each comes as often as it should in any run that is long."""
    while True:
        yield from chance.sample(cards, len(cards))


def _shift(chance: random.Random, least: float, most: float) -> float:
    """Return a shift of a clock in seconds: small and large ones are equally likely, forwards or backwards."""
    size = float(least * (most / least) ** chance.random())
    return round(size) * chance.choice([-1.0, 1.0])
