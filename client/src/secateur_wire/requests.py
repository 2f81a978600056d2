"""Base class of requests, and the common kinds of text in their fields."""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

LONGEST_SHOWN: Final = 80
"""Maximum number of characters that a message quotes of a value."""
LONGEST_TEXTS: Final = 65_536
"""Largest number of bytes of all texts in the lists of one part of a job body, such as `vocabulary.keep`."""

_RULES: dict[str, str] = {}
"""Rules in words by pattern: pydantic's errors only have the pattern."""


def spelled(
    pattern: str, rule: str, *, min_length: int | None = None, max_length: int | None = None
) -> StringConstraints:
    """Return the constraints of a text with a pattern. An error message quotes `rule` after the word "use"."""
    _RULES[pattern] = rule
    return StringConstraints(pattern=pattern, min_length=min_length, max_length=max_length)


def rule_of(pattern: str) -> str | None:
    """Return the rule of a pattern, None where it has none."""
    return _RULES.get(pattern)


LabelName = Annotated[
    str,
    spelled(r"^[A-Za-z0-9_.\-]{1,100}$", "1 to 100 letters a to z, digits, dots, hyphens and underscores"),
]
"""A name that users choose: a key of metadata."""


@dataclass(frozen=True)
class UnknownField:
    """The value of an unknown field, with the names of the fields that its object has: errors then name the nearest."""

    value: object
    known: tuple[str, ...]


class RequestObject(BaseModel):
    """An object of a request. An error about another value names the fields of the object."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, given: object) -> object:
        if isinstance(given, Mapping):
            known = tuple(cls.model_fields)
            return {name: value if name in known else UnknownField(value, known) for name, value in given.items()}
        if isinstance(given, BaseModel):
            return given
        raise PydanticCustomError("object_expected", "{expected}", {"expected": _expected(cls, given)})


def inherited(base: type[BaseModel], name: str, *, description: str | None = None) -> Any:
    """Return the default and the schema facts of a field in a base class, for a subclass that narrows its type."""
    field = copy(base.model_fields[name])
    field.description = description or field.description
    return field


def kind_of(value: object) -> str:
    """Return the name of a JSON value's type."""
    for known, kind in ((bool, "a boolean"), (str, "a string"), (int | float, "a number"), (list, "an array")):
        if isinstance(value, known):
            return kind
    return "null" if value is None else "an object"


def listed_bytes(value: object, is_listed: bool = False) -> Iterator[int]:
    """Yield the size in bytes of each text in a list, at any depth; texts elsewhere have limits of their own."""
    if isinstance(value, str):
        if is_listed:
            yield len(value.encode(errors="surrogatepass"))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from listed_bytes(each, is_listed)
    elif isinstance(value, Sequence):
        for each in value:
            yield from listed_bytes(each, True)


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
