"""Copying of a few words in their order."""

from random import Random

from core.engine.datasets.simple_tasks.simple_task import Drawn, SimpleTask
from core.engine.datasets.simple_tasks.words import NOUNS


def _draw(random: Random) -> Drawn:
    words = " ".join(random.sample(NOUNS, random.randint(2, 4)))
    return Drawn(f"Repeat these words: {words}", words, words)


TASK = SimpleTask("copy", 1, "repeat two to four words", "exact_match", _draw)
