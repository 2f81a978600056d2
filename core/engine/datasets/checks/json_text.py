"""JSON in an answer: the whole answer, or the first fenced block of it."""

import re
from typing import Any, Final

from core.untrusted_json import JsonLimits, parse_json

_FENCED: Final = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_LIMITS: Final = JsonLimits(values=100_000, levels=64)


def parse_answer(answer: str) -> Any:
    """Return the JSON value of an answer; raises ValueError where it is none.

    The value is the content of the first block in ``` marks if there is one, and otherwise the whole answer: text
    around it is an error for a program that reads it.
    """
    fenced = _FENCED.search(answer)
    return parse_json((fenced[1] if fenced else answer).strip().encode(errors="replace"), _LIMITS, constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")
