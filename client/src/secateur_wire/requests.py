"""Base of requests, and the kinds of text that their fields are made of."""

import json
from collections.abc import Mapping
from copy import copy
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

LONGEST_SHOWN: Final = 80
"""Characters of a value that a message quotes."""

_RULES: dict[str, str] = {}
"""Each pattern's rule in words: errors of pydantic hold the pattern alone."""


def spelled(
    pattern: str, rule: str, *, min_length: int | None = None, max_length: int | None = None
) -> StringConstraints:
    """Return constraints on a text whose pattern is told by `rule`, words that go on from "use "."""
    _RULES[pattern] = rule
    return StringConstraints(pattern=pattern, min_length=min_length, max_length=max_length)


def rule_of(pattern: str) -> str | None:
    """Return the rule that a pattern was spelled with, None where it has none."""
    return _RULES.get(pattern)


LabelName = Annotated[
    str,
    spelled(r"^[A-Za-z0-9_.\-]{1,100}$", "1 to 100 letters a to z, digits, dots, hyphens and underscores"),
]
"""A name that people give to what they keep: a key of metadata."""


class RequestObject(BaseModel):
    """An object of a request. Another value in its place is told which fields belong there."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, given: object) -> object:
        if isinstance(given, Mapping | BaseModel):
            return given
        raise PydanticCustomError("object_expected", "{expected}", {"expected": _expected(cls, given)})


def inherited(base: type[BaseModel], name: str, *, description: str | None = None) -> Any:
    """Return the default and the facts that a field has in a base class, for a subclass that narrows its type."""
    field = copy(base.model_fields[name])
    field.description = description or field.description
    return field


def kind_of(value: object) -> str:
    """Return the type of a JSON value, in words."""
    for known, kind in ((bool, "a boolean"), (str, "a string"), (int | float, "a number"), (list, "an array")):
        if isinstance(value, known):
            return kind
    return "null" if value is None else "an object"


def _expected(part: type[BaseModel], given: object) -> str:
    required = [name for name, field in part.model_fields.items() if field.is_required()]
    others = [name for name in part.model_fields if name not in required]
    if not required:
        return f"expected an object with any of {', '.join(others)}, not {kind_of(given)}"
    example = ""
    if len(required) == 1 and isinstance(given, str) and len(given) <= LONGEST_SHOWN:
        example = f" such as {json.dumps({required[0]: given}, ensure_ascii=False)}"
    optional = f", and where wanted {', '.join(others)}" if others else ""
    return f"expected an object{example} with {', '.join(required)}{optional}, not {kind_of(given)}"
