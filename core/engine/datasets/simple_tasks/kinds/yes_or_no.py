"""Question about a given sentence, to answer with yes or no."""

from random import Random

from core.engine.datasets.simple_tasks.simple_task import Drawn, SimpleTask
from core.engine.datasets.simple_tasks.words import NAMES, NOUNS


def _draw(random: Random) -> Drawn:
    name, (thing, other) = random.choice(NAMES), random.sample(NOUNS, 2)
    answer = random.choice(("yes", "no"))
    named = thing if answer == "yes" else other
    question = f'Is the word "{named}" in this sentence? {name} has a {thing}.'
    reference = {"choices": ["yes", "no"], "answer": answer}
    return Drawn(question, f"{answer.capitalize()}.", reference)


TASK = SimpleTask("yes_no", 6, "answer a question about a given sentence", "choice", _draw)
