"""Validation errors of pydantic in words, for answers, forms and commands."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import CoreSchema, core_schema

from secateur_wire.errors import InvalidRequest
from secateur_wire.requests import LONGEST_SHOWN, kind_of, rule_of

OBJECT_EXPECTED: Final = frozenset({"object_expected", "model_attributes_type", "model_type", "dict_type"})
"""Types of pydantic's errors for values that must be JSON objects."""

MOST_ERRORS: Final = 10
"""Largest number of errors in one sentence."""

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
    """Return the text of one of pydantic's errors, without its location."""
    if error["type"] == "extra_forbidden":
        return "unknown field"
    if error["type"] == "string_pattern_mismatch":
        rule = rule_of(error["ctx"]["pattern"])
        return error["msg"] if rule is None else f"{shown(error['input'])} is not valid here: use {rule}"
    if error["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{error['msg']}{nearest_hint(error['input'], known)}"
    if error["type"] in OBJECT_EXPECTED - {"object_expected"}:
        return f"expected a JSON object, not {kind_of(error['input'])}"
    return str(error["msg"])


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


def shown(value: object) -> str:
    """Return a value as a message quotes it; long values are cut."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
