"""Question about a given sentence, to answer with yes or no."""

from random import Random

from core.engine.datasets.simple_tasks.simple_task import Drawn, SimpleTask
from core.engine.datasets.simple_tasks.words import NAMES, NOUNS


def _draw(random: Random) -> Drawn:
    name, thing, answer = random.choice(NAMES), random.choice(NOUNS), random.choice(("yes", "no"))
    question = f"Do you want the {thing}? {name} says: {answer}. Does {name} want the {thing}?"
    return Drawn(question, f"{answer.capitalize()}.", {"choices": ["yes", "no"], "answer": answer})


TASK = SimpleTask("yes_no", 6, "say what somebody said in a given sentence, yes or no", "choice", _draw)
