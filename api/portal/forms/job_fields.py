"""Fields of a job body as the texts of a form, written by the kind of field."""

import json
import math
from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final

from api.http.bodies import BODY_LIMITS
from core.methods.registry import METHODS
from core.service.jobs.schemas import JobBody
from core.untrusted_json import parse_json
from secateur_wire.body_fields import YES_OR_NO, Field, body_fields, parameter_fields
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_fields import GROUPS

ALL: Final = "all"
"""Text for null where a number is expected and an empty field has another meaning."""


def job_fields(method: str, pattern: str | None = None) -> Mapping[str, Field]:
    """Return every field of a job body, including the parameters of a method with a pattern."""
    own = METHODS.get(method)
    fields = body_fields(JobBody)
    return fields if own is None else {**fields, **parameter_fields(own.variant(pattern).parameters)}


def rows_of(group: str, fields: Mapping[str, Field]) -> list[tuple[bool, list[Field]]]:
    """Return the fields of a group in table order; consecutive numbers form a row."""
    there = [fields[entry.path] for entry in GROUPS[group] if entry.path in fields]
    return [(is_row, list(row)) for is_row, row in groupby(there, lambda field: field.kind == "number")]


def shown_default(field: Field) -> str:
    """Return the text of an empty field's default; "" without one."""
    return "" if field.default in (None, [], {}) else " ".join(write_value(field, field.default))


def read_value(field: Field, values: list[str]) -> Any:
    """Parse a field's texts into its value. Raises InvalidRequest for invalid JSON or NAME=VALUE."""
    text = values[-1]
    if field.entry.offers == "exports" and not text.startswith("["):
        return _exports(values)
    match field.kind:
        case "number":
            return None if field.is_open and text == ALL else _number(text)
        case "choice":
            return {"true": True, "false": False}.get(text, text) if field.options == YES_OR_NO else text
        case "lines":
            return one_a_line(values)
        case "pairs":
            return _pairs(field.name, values)
        case "loose":
            return json_or_text(text)
        case "json":
            try:
                return parse_json(text.encode(), BODY_LIMITS, members=dict)
            except ValueError as error:
                example = json.dumps(field.default) if field.default else '[0.1, 0.2] or {"r": 8}'
                raise InvalidRequest(
                    f"{field.name}: {text[:100]!r} is not JSON ({error}): write for example {example}",
                    param=field.name,
                ) from None
        case _:
            return text


def write_value(field: Field, value: Any) -> list[str]:
    """Return the texts of a field's value; none where an empty field has that value."""
    if value is None:
        return [ALL] if field.is_open else ["null"] if field.kind == "json" else []
    if field.entry.offers == "exports":
        texts = [f"{each['format']}:{name}" for each in value for name in each["types"]]
        return texts if _exports(texts) == value else [json.dumps(value)]
    match field.kind:
        case "choice" if isinstance(value, bool):
            return [json.dumps(value)]
        case "lines":
            return list(value) if one_a_line(value) == value else [json.dumps(value)]
        case "pairs":
            is_plain = all("\n" not in each and each == each.strip() for each in value.values())
            written = "\n".join(f"{name}={each}" for name, each in value.items())
            return [written if is_plain else json.dumps(value)] if value else []
        case "loose" if isinstance(value, str):
            return [value if isinstance(json_or_text(value), str) else json.dumps(value)]
        case "json" | "loose":
            return [json.dumps(value)]
        case _:
            return [str(value)]


def _number(text: str) -> int | float | str:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return text
    return text if not math.isfinite(value) else int(value) if value.is_integer() else value


def _exports(values: list[str]) -> list[dict[str, Any]]:
    """Return added files from texts such as gguf:Q8_0, with all types of a format together."""
    types: dict[str, list[str]] = {}
    for line in one_a_line(values):
        form, _, name = line.partition(":")
        types.setdefault(form, []).append(name)
    return [{"format": form, "types": names} for form, names in types.items()]


def one_a_line(values: list[str]) -> list[str]:
    """Split texts by line; if one of them does not fit on a line, all of them are one JSON list."""
    if len(values) == 1 and values[0].startswith("["):
        given = json_or_text(values[0])
        if isinstance(given, list) and all(isinstance(each, str) for each in given):
            return given
    return [line.strip() for value in values for line in value.split("\n") if line.strip()]


def _pairs(field: str, values: list[str]) -> dict[str, str]:
    """Parse pairs by line; if one does not fit on a line, all of them are one JSON object."""
    given = json_or_text(values[0]) if len(values) == 1 and values[0].startswith("{") else None
    if isinstance(given, dict):
        return given
    pairs: dict[str, str] = {}
    for line in (line.strip() for value in values for line in value.split("\n")):
        name, equals, value = line.partition("=")
        if line and not (equals and name.strip()):
            raise InvalidRequest(f"{field}: {line[:100]!r} is no label: write NAME=VALUE", param=field)
        if line:
            pairs[name.strip()] = value.strip()
    return pairs


def json_or_text(text: str) -> Any:
    try:
        return parse_json(text.encode(), BODY_LIMITS, members=dict)
    except ValueError:
        return text
