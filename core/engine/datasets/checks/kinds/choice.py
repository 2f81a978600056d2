"""First choice that an answer names."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.engine.datasets.checks.check import Check
from core.engine.datasets.checks.references import read_model


class _Choice(BaseModel):
    """Choices, and the right one of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    choices: list[str] = Field(min_length=2, max_length=100)
    answer: str

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> "_Choice":
        if any(not each.strip() for each in self.choices):
            raise ValueError("a choice is empty")
        if self.answer not in self.choices:
            raise ValueError(f"answer {self.answer[:50]!r} is none of the choices")
        return self


def _read(reference: Any) -> _Choice:
    return read_model(_Choice, reference)


def _names_first(answer: str, reference: _Choice) -> bool:
    """Return True where the choice that the answer names first, as whole words, is the right one.

    Where several begin at the same place, the longest is the one named. A choice of one letter counts in its own case
    alone, so that the article in "a dog" is no choice A.
    """
    by_length = sorted(reference.choices, key=len, reverse=True)
    pattern = "|".join(f"({_words(choice)})" for choice in by_length)
    first = re.search(pattern, answer)
    return first is not None and by_length[(first.lastindex or 0) - 1] == reference.answer


def _words(choice: str) -> str:
    text = re.escape(choice)
    return rf"(?<!\w){text if len(choice) == 1 else f'(?i:{text})'}(?!\w)"


CHECK = Check("choice", 4, "the first of the choices that is named is the right one", _read, _names_first)
