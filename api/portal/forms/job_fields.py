"""Form fields of a job body: one for each leaf of its JSON schema, named by its dotted path there.

Each kind of field has its way of writing values as text.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from core.engine.options.base import MethodParameters
from core.errors import InvalidRequest
from core.methods.registry import METHODS
from core.service.jobs.schemas import JobBody

PARAMETERS: Final = "parameters."
METADATA: Final = "metadata"
Kind = Literal["text", "number", "choice", "lines", "pairs", "json", "loose"]
_YES_OR_NO: Final = ("true", "false")
ALL: Final = "all"
"""Text for null where a number is expected and unset means another."""


@dataclass(frozen=True)
class Field:
    """One field. `kind` lines: texts, one a line; pairs: NAME=VALUE, one a line; json: JSON; loose: JSON, or else text.

    `step` and the bounds are of numbers, `options` of choices, `is_open` says that the number may be `all`.
    """

    name: str
    kind: Kind
    label: str
    hint: str
    default: Any = None
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: Literal["1", "any"] = "any"
    is_open: bool = False

    @property
    def shown_default(self) -> str:
        """Return the text of the default that an empty field means; "" where it means none."""
        return "" if self.default in (None, [], {}) else " ".join(self.write(self.default))

    def read(self, values: list[str]) -> Any:
        """Parse the field's texts into its value. Raises InvalidRequest where they are not JSON or not NAME=VALUE."""
        text = values[-1]
        match self.kind:
            case "number":
                return None if self.is_open and text == ALL else _number(text)
            case "choice":
                return {"true": True, "false": False}.get(text, text) if self.options == _YES_OR_NO else text
            case "lines":
                return one_a_line(values)
            case "pairs":
                return _pairs(self.name, values)
            case "loose":
                return json_or_text(text)
            case "json":
                try:
                    return json.loads(text)
                except (ValueError, RecursionError) as error:
                    example = json.dumps(self.default) if self.default else '[0.1, 0.2] or {"r": 8}'
                    raise InvalidRequest(
                        f"{self.name}: {text[:100]!r} is not JSON ({error}): write for example {example}",
                        param=self.name,
                    ) from None
            case _:
                return text

    def write(self, value: Any) -> list[str]:
        """Return the texts of a value; none where an empty field means it."""
        if value is None:
            return [ALL] if self.is_open else ["null"] if self.kind == "json" else []
        match self.kind:
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


def job_fields(method: str, pattern: str | None = None) -> dict[str, Field]:
    """Return every field of a job body, with the parameters that a method of the catalogue has with a pattern."""
    own = METHODS.get(method)
    return _body_fields() if own is None else _body_fields() | parameter_fields(own.variant(pattern).parameters)


@cache
def _body_fields() -> dict[str, Field]:
    schema = JobBody.model_json_schema()
    fields: dict[str, Field] = {}
    for name, inner in schema["properties"].items():
        part = _resolved(schema, inner)
        if "properties" in part:
            for own, leaf in part["properties"].items():
                fields[f"{name}.{own}"] = _field(schema, f"{name}.{own}", leaf)
        elif name != PARAMETERS.rstrip("."):
            fields[name] = _field(schema, name, inner)
    return fields


@cache
def parameter_fields(parameters: type[MethodParameters]) -> dict[str, Field]:
    schema = parameters.model_json_schema()
    return {
        f"{PARAMETERS}{name}": _field(schema, PARAMETERS + name, leaf) for name, leaf in schema["properties"].items()
    }


def _resolved(schema: Mapping[str, Any], inner: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema with its reference resolved, and without null as the one alternative."""
    alternatives = [each for each in inner.get("anyOf", ()) if each.get("type") != "null"]
    if len(alternatives) == 1:
        inner = {**inner, **alternatives[0]}
    if "$ref" in inner:
        inner = {**schema["$defs"][inner["$ref"].rpartition("/")[2]], **inner}
    return inner


def _field(schema: Mapping[str, Any], name: str, inner: Mapping[str, Any]) -> Field:
    leaf = _resolved(schema, inner)
    default = leaf.get("default")
    facts: dict[str, Any] = {
        "name": name,
        "label": name.rpartition(".")[2].replace("_", " ").capitalize(),
        "hint": leaf.get("description", ""),
        "default": default,
    }
    kind = leaf.get("type")
    if "const" in leaf or "enum" in leaf:
        return Field(kind="choice", options=tuple(leaf.get("enum", [leaf.get("const")])), **facts)
    if kind == "boolean":
        return Field(kind="choice", options=_YES_OR_NO, **facts)
    if kind in ("integer", "number"):
        is_integer = kind == "integer"
        minimum = leaf.get("minimum")
        if minimum is None and not is_integer and "exclusiveMinimum" in leaf:
            minimum = leaf["exclusiveMinimum"]
        return Field(
            kind="number",
            minimum=minimum,
            maximum=leaf.get("maximum"),
            step="1" if is_integer else "any",
            is_open=default is not None and {"type": "null"} in inner.get("anyOf", ()),
            **facts,
        )
    if kind == "string":
        return Field(kind="text", **facts)
    if kind == "array" and leaf.get("items", {}).get("type") == "string":
        return Field(kind="lines", **facts)
    if kind == "object" and any(each.get("type") == "string" for each in leaf.get("patternProperties", {}).values()):
        return Field(kind="pairs", **facts)
    return Field(kind="loose" if "anyOf" in leaf and kind is None else "json", **facts)


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


def one_a_line(values: list[str]) -> list[str]:
    """Split texts written one a line; where one of them does not fit on a line, all together are one JSON list."""
    if len(values) == 1 and values[0].startswith("["):
        given = json_or_text(values[0])
        if isinstance(given, list) and all(isinstance(each, str) for each in given):
            return given
    return [line.strip() for value in values for line in value.split("\n") if line.strip()]


def _pairs(field: str, values: list[str]) -> dict[str, str]:
    """Parse pairs written one a line; where one does not fit on a line, all together are one JSON object."""
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
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
