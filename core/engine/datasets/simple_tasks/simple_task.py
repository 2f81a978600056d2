"""Interface of a kind of simple tasks, and the conversations that are made of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from core.engine.datasets.chat.conversations import CHECK, MESSAGES, REFERENCE
from secateur_wire.base import JsonObject

_EXAMPLES: Final = 4
"""Solved examples of the same kind that come before a question, as turns of the conversation."""


@dataclass(frozen=True)
class Drawn:
    """Question with its right answer, and the reference by which the task's check knows it."""

    question: str
    answer: str
    reference: Any


@dataclass(frozen=True)
class SimpleTask:
    """Kind of tasks; lists are sorted by `rank`. `check` is the id of the check of its answers."""

    id: str
    rank: int
    title: str
    check: str
    draw: Callable[[Random], Drawn]

    def conversations(self, seed: int) -> Iterator[JsonObject]:
        """Yield conversations without end: solved examples, the question, and its answer.

        The examples of a conversation are other questions than its own.
        """
        random = Random(f"{self.id} {seed}")  # a text seeds by its hash, the same in every process
        while True:
            drawn = {each.question: each for each in (self.draw(random) for _ in range(8 * _EXAMPLES))}
            *examples, last = list(drawn.values())[: _EXAMPLES + 1]
            turns = [turn for each in (*examples, last) for turn in _turns(each)]
            conversation: JsonObject = {MESSAGES: [*turns], CHECK: self.check, REFERENCE: last.reference}
            yield conversation


def _turns(drawn: Drawn) -> list[JsonObject]:
    return [{"role": "user", "content": drawn.question}, {"role": "assistant", "content": drawn.answer}]
