"""Validation errors of pydantic in words, for answers, forms and commands."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from core.errors import InvalidRequest

OBJECT_EXPECTED: Final = frozenset({"object_expected", "model_attributes_type", "model_type", "dict_type"})
"""Types of the errors of a value that had to be a JSON object."""

MOST_ERRORS: Final = 10
"""Faults that one sentence names."""

_LONGEST_SHOWN: Final = 80

_CREDENTIAL = re.compile(r"[!-~]+")
"""Characters of a header: anything else would fail later, in a message that quotes it."""

_RULES: dict[str, str] = {}
"""Each pattern's rule in words: errors of pydantic hold the pattern alone."""


def spelled(
    pattern: str, rule: str, *, min_length: int | None = None, max_length: int | None = None
) -> StringConstraints:
    """Return constraints on a text whose pattern is told by `rule`, words that go on from "use "."""
    _RULES[pattern] = rule
    return StringConstraints(pattern=pattern, min_length=min_length, max_length=max_length)


LabelName = Annotated[
    str,
    spelled(r"^[A-Za-z0-9_.\-]{1,100}$", "1 to 100 letters a to z, digits, dots, hyphens and underscores"),
]
"""A name that people give to what they keep: a key of metadata."""


class RegisteredId:
    """Annotation of a string that is one of some ids: what `Literal` is for ids that are known in advance."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = list(ids)

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.literal_schema(self._ids)


class RequestObject(BaseModel):
    """An object of a request. Another value in its place is told which fields belong there."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, given: object) -> object:
        if isinstance(given, Mapping | BaseModel):
            return given
        raise PydanticCustomError("object_expected", "{expected}", {"expected": _expected(cls, given)})


def require_credential(name: str, value: str) -> None:
    """Raise InvalidRequest where this cannot be a token or a key; the message never quotes it."""
    if not _CREDENTIAL.fullmatch(value):
        raise InvalidRequest(f"{name}: holds spaces, line breaks or letters no {name} has", param=name)


def message_of(error: Mapping[str, Any]) -> str:
    """Return the text of one of pydantic's errors, without its place."""
    if error["type"] == "extra_forbidden":
        return "unknown field"
    if error["type"] == "string_pattern_mismatch":
        rule = _RULES.get(error["ctx"]["pattern"])
        return error["msg"] if rule is None else f"{shown(error['input'])} does not fit: use {rule}"
    if error["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{error['msg']}{nearest_hint(error['input'], known)}"
    if error["type"] in OBJECT_EXPECTED - {"object_expected"}:
        return f"expected a JSON object, not {kind_of(error['input'])}"
    return str(error["msg"])


def sentence_of(place: str | None, message: str) -> str:
    """Return a fault with its place, where it has one, as an answer says it."""
    return f"{place}: {message}" if place else message


def describe_error(error: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return (param, sentence) of one of pydantic's errors."""
    param = ".".join(str(part) for part in error["loc"]) or None
    return param, sentence_of(param, message_of(error))


def invalid_request(error: ValidationError, *, opening: str = "") -> InvalidRequest:
    """Return the refusal that names every fault; `opening` goes before them."""
    errors = [describe_error(each) for each in error.errors(include_url=False)]
    return InvalidRequest(opening + joined([sentence for _, sentence in errors]), param=errors[0][0])


def joined(sentences: Sequence[str]) -> str:
    """Return faults as one sentence."""
    return "; ".join(sentences[:MOST_ERRORS])


def nearest_hint(given: object, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to a given one; nothing where none is near."""
    near = get_close_matches(given, known, n=1) if isinstance(given, str) and len(given) <= _LONGEST_SHOWN else []
    return f"; did you mean {near[0]!r}?" if near else ""


def kind_of(value: object) -> str:
    """Return the type of a JSON value, in words."""
    for known, kind in ((bool, "a boolean"), (str, "a string"), (int | float, "a number"), (list, "an array")):
        if isinstance(value, known):
            return kind
    return "null" if value is None else "an object"


def shown(value: object) -> str:
    """Return a value as a message quotes it: cut off where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _expected(part: type[BaseModel], given: object) -> str:
    required = [name for name, field in part.model_fields.items() if field.is_required()]
    others = [name for name in part.model_fields if name not in required]
    if not required:
        return f"expected an object with any of {', '.join(others)}, not {kind_of(given)}"
    example = ""
    if len(required) == 1 and isinstance(given, str) and len(given) <= _LONGEST_SHOWN:
        example = f" such as {json.dumps({required[0]: given}, ensure_ascii=False)}"
    optional = f", and where wanted {', '.join(others)}" if others else ""
    return f"expected an object{example} with {', '.join(required)}{optional}, not {kind_of(given)}"
