"""Validation errors of pydantic in words, for answers, forms and commands."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import CoreSchema, core_schema

from secateur_wire import gone
from secateur_wire.errors import InvalidRequest
from secateur_wire.requests import LONGEST_SHOWN, kind_of, rule_of

OBJECT_EXPECTED: Final = frozenset({"object_expected", "model_attributes_type", "model_type", "dict_type"})
"""Types of pydantic's errors for values that must be JSON objects."""

MOST_ERRORS: Final = 10
"""Largest number of errors in one sentence."""

_WORDS: Final[Mapping[str, str]] = {
    "missing": "is required",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "too_short": "must have at least {min_length}, not {actual_length}",
    "too_long": "must have at most {max_length}, not {actual_length}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    "int_parsing_size": "is too large",
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "sequence_type"), "must be a list"),
    "string_type": "must be a text",
    "json_invalid": "is not valid JSON: {error}",
}
"""Sentences by the types of pydantic's errors, with the names in their contexts."""

_NO_SHARES: Final = (("learning_rate",),)
"""Fields with values up to 1 that are no shares."""

_CREDENTIAL = re.compile(r"[!-~]+")
"""Characters that a header may contain; others would fail later, in a message that quotes the value."""


class RegisteredId:
    """Annotation of a string that is one of some ids; it replaces `Literal` if the ids are known only at run time."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = list(ids)

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.literal_schema(self._ids)


def require_credential(name: str, value: str) -> None:
    """Raise InvalidRequest if this cannot be a token or a key; the message never quotes it."""
    if not _CREDENTIAL.fullmatch(value):
        raise InvalidRequest(f"{name}: holds spaces, line breaks or letters no {name} has", param=name)


def message_of(error: Mapping[str, Any]) -> str:
    """Return the text of one of pydantic's errors in this service's own words, without its location."""
    kind, given = error["type"], error["input"]
    context: dict[str, Any] = {name: _plain(value) for name, value in error.get("ctx", {}).items()}
    if kind == "extra_forbidden":
        if successor := gone.successor_of(error["loc"]):
            return f"this field has left: {successor}"
        return f"unknown field{nearest_hint(error['loc'][-1], getattr(given, 'known', ()))}"
    if isinstance(given, str) and (left := gone.VALUES.get((*error.get("loc", ())[-1:], given))):
        return f"{given!r} has left: {left}"
    if kind == "string_pattern_mismatch":
        rule = rule_of(context["pattern"])
        return error["msg"] if rule is None else f"{shown(given)} is not valid here: use {rule}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        return f"must be {context['expected']}{nearest_hint(given, known)}"
    if kind in OBJECT_EXPECTED - {"object_expected"}:
        return f"expected a JSON object, not {kind_of(given)}"
    if kind in ("less_than", "less_than_equal") and 1 in context.values() and error["loc"][-1:] not in _NO_SHARES:
        return f"{_WORDS[kind].format(**context)}{share_hint(given)}"
    if kind == "value_error":
        return str(context["error"])
    return _WORDS[kind].format(**context) if kind in _WORDS else str(error["msg"])


def _plain(value: object) -> object:
    """Return a bound as people write it: 1, not 1.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def sentence_of(place: str | None, message: str) -> str:
    """Return an error as a sentence, with its location if it has one."""
    return f"{place}: {message}" if place else message


def describe_error(error: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return (param, sentence) of one of pydantic's errors."""
    param = ".".join(str(part) for part in error["loc"]) or None
    return param, sentence_of(param, message_of(error))


def invalid_request(error: ValidationError, *, opening: str = "") -> InvalidRequest:
    """Return the InvalidRequest that names every error; `opening` precedes them."""
    errors = [describe_error(each) for each in error.errors(include_url=False)]
    return InvalidRequest(opening + joined([sentence for _, sentence in errors]), param=errors[0][0])


def joined(sentences: Sequence[str]) -> str:
    """Return errors as one sentence."""
    return "; ".join(sentences[:MOST_ERRORS])


def nearest_hint(given: object, known: Iterable[str]) -> str:
    """Return a question that names the known word nearest to `given`; empty if none is similar."""
    near = get_close_matches(given, known, n=1) if isinstance(given, str) and len(given) <= LONGEST_SHOWN else []
    return f"; did you mean {near[0]!r}?" if near else ""


def share_hint(given: object) -> str:
    """Return a question that names the share that a percentage stands for; empty for a value that is none."""
    if isinstance(given, int | float) and 1 < given <= 100:
        return f"; a share lies between 0 and 1: did you mean {given / 100:g}?"
    return ""


def shown(value: object) -> str:
    """Return a value as a message quotes it; long values are cut."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
