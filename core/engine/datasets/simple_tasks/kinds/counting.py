"""Counting of the words of a list, one by one."""

from random import Random

from core.engine.datasets.simple_tasks.simple_task import Drawn, SimpleTask
from core.engine.datasets.simple_tasks.words import NOUNS


def _draw(random: Random) -> Drawn:
    words = random.sample(NOUNS, random.randint(2, 4))
    counted = ", ".join(f"{number} {word}" for number, word in enumerate(words, 1))
    return Drawn(f"Count: {', '.join(words)}", f"{counted}. Total: {len(words)}", len(words))


TASK = SimpleTask("count", 2, "count the words of a list, two to four", "number", _draw)
