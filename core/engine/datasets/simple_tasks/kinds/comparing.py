"""Comparison of two numbers: the smaller one is to come first."""

from random import Random

from core.engine.datasets.simple_tasks.simple_task import Drawn, SimpleTask

_LARGEST = 99
_LEAST_DIFFERENCE = 20


def _draw(random: Random) -> Drawn:
    smaller = random.randint(1, _LARGEST - _LEAST_DIFFERENCE)
    larger = random.randint(smaller + _LEAST_DIFFERENCE, _LARGEST)
    first, second = random.sample((smaller, larger), 2)
    ordered = f"{smaller}, {larger}"
    return Drawn(f"Put these numbers in order: {first}, {second}", ordered, ordered)


TASK = SimpleTask("compare", 3, "put two numbers in order", "exact_match", _draw)
