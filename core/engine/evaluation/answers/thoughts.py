"""Thoughts that a reasoning model writes before its answer, between `<think>` and `</think>`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

OPENS: Final = "<think>"
CLOSES: Final = "</think>"


@dataclass(frozen=True)
class ThoughtSplit:
    """Numbers of an answer's tokens: the first `thought` belong to the thought, with its marks.

    `has_thought` is False where the model did not think; `is_finished` is False where the thought does not end.
    """

    thought: int
    has_thought: bool
    is_finished: bool


def opens_thought(question: str) -> bool:
    """Return True if the text of a question ends with the mark that begins a thought."""
    return question.rstrip().endswith(OPENS)


def split_thought(ids: Sequence[int], decode: Callable[[Sequence[int]], str], *, is_open: bool) -> ThoughtSplit:
    """Return where the thought of an answer ends; `is_open`: the question has begun it.

    `decode` returns the text of tokens, with marks that are special tokens. What precedes `</think>` is a thought even
    without `<think>`, because some templates begin it for the model.
    """
    text = decode(ids)
    if CLOSES not in text:
        begins = is_open or text.lstrip().startswith(OPENS)
        return ThoughtSplit(len(ids) if begins else 0, has_thought=begins, is_finished=not begins)
    low, high = 0, len(ids)
    while high - low > 1:  # the text of the first tokens only grows with their number
        middle = (low + high) // 2
        low, high = (low, middle) if CLOSES in decode(ids[:middle]) else (middle, high)
    return ThoughtSplit(high, has_thought=True, is_finished=True)


def without_marks(thought: str) -> str:
    """Return the text of a thought without the marks around it."""
    return thought.replace(OPENS, "").replace(CLOSES, "").strip()
