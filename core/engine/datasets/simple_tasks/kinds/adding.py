"""Addition of two numbers, with a sum of at most 20."""

from random import Random

from core.engine.datasets.simple_tasks.simple_task import Drawn, SimpleTask

_LARGEST_SUM = 20


def _draw(random: Random) -> Drawn:
    total = random.randint(2, _LARGEST_SUM)
    first = random.randint(1, total - 1)
    return Drawn(f"What is {first} + {total - first}?", f"{first} + {total - first} = {total}", total)


TASK = SimpleTask("add", 4, "add two numbers, 20 at most", "number", _draw)
