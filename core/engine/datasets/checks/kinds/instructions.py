"""Instructions that a program can verify, in any language, as IFEval has them (Zhou et al. 2023, arXiv:2311.07911).

Words are runs of letters and digits; in scripts without spaces `characters` says more than `words`.
"""

import re
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.engine.datasets.checks.check import Check
from core.engine.datasets.checks.json_text import parse_answer
from core.engine.datasets.checks.references import read_model

_WORD: Final = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END: Final = re.compile(r"[.!?…]+(?=\s|$)|[。！？]+")
_BULLET: Final = re.compile(r"^[ \t]*(?:[-*+•]|\d+[.)])[ \t]+\S", re.MULTILINE)
_BLANK_LINE: Final = re.compile(r"\n[ \t]*\n")


class _Count(BaseModel):
    """Bounds of a count, both included."""

    model_config = ConfigDict(extra="forbid", strict=True)

    at_least: int | None = Field(None, ge=0)
    at_most: int | None = Field(None, ge=0)
    exactly: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _says_something(self) -> "_Count":
        if not self.model_fields_set:
            raise ValueError("at_least, at_most or exactly is needed")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least is more than at_most")
        return self

    def holds(self, count: int) -> bool:
        """Return True where the count is within the bounds."""
        return (
            (self.at_least is None or count >= self.at_least)
            and (self.at_most is None or count <= self.at_most)
            and (self.exactly is None or count == self.exactly)
        )


class _Instructions(BaseModel):
    """Instructions; the answer has to follow each of them.

    `keywords` and `forbidden` are whole words or phrases, upper and lower case alike. `starts_with` and `ends_with` are
    exact, white space at the answer's ends aside. `commas` set to false forbids them.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    words: _Count | None = None
    characters: _Count | None = None
    sentences: _Count | None = None
    paragraphs: _Count | None = None
    lines: _Count | None = None
    bullets: _Count | None = None
    keywords: list[str] = []
    forbidden: list[str] = []
    case: Literal["lower", "upper"] | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    commas: Literal[False] | None = None
    json_only: Literal[True] | None = Field(None, alias="json")

    @model_validator(mode="after")
    def _says_something(self) -> "_Instructions":
        if not self.model_fields_set:
            raise ValueError("there is no instruction")
        if any(not each.strip() for each in (*self.keywords, *self.forbidden)):
            raise ValueError("a keyword is empty")
        return self


def _read(reference: Any) -> _Instructions:
    return read_model(_Instructions, reference)


def _follows(answer: str, instructions: _Instructions) -> bool:
    answer = answer.strip()
    return bool(answer) and all(each(answer, instructions) for each in (_has_length, _has_words, _has_form))


def _has_length(answer: str, instructions: _Instructions) -> bool:
    counts = (
        (instructions.words, len(_WORD.findall(answer))),
        (instructions.characters, len(answer)),
        (instructions.sentences, _sentences(answer)),
        (instructions.paragraphs, len(_BLANK_LINE.split(answer))),
        (instructions.lines, sum(bool(line.strip()) for line in answer.splitlines())),
        (instructions.bullets, len(_BULLET.findall(answer))),
    )
    return all(bounds is None or bounds.holds(count) for bounds, count in counts)


def _sentences(answer: str) -> int:
    """Return the number of sentences; what follows the last full stop is one as well."""
    return sum(bool(_WORD.search(part)) for part in _SENTENCE_END.split(answer))


def _has_words(answer: str, instructions: _Instructions) -> bool:
    return all(_names(answer, each) for each in instructions.keywords) and not any(
        _names(answer, each) for each in instructions.forbidden
    )


def _names(answer: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", answer, re.IGNORECASE) is not None


def _has_form(answer: str, instructions: _Instructions) -> bool:
    cased = {"lower": answer.lower(), "upper": answer.upper(), None: answer}
    return (
        answer == cased[instructions.case]
        and answer.startswith(instructions.starts_with or "")
        and answer.endswith(instructions.ends_with or "")
        and not (instructions.commas is False and re.search("[,，、،]", answer))
        and (instructions.json_only is None or _is_json(answer))
    )


def _is_json(answer: str) -> bool:
    try:
        parse_answer(answer)
    except ValueError:
        return False
    return True


CHECK = Check("instructions", 7, "every instruction that a program can verify is followed", _read, _follows)
