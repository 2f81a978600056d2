"""A job body as the fields of a form, and back. Fields are named by their dotted place in the body, their kinds come
from its JSON schema: what a field says is sent with the type that belongs there, what is empty is not sent."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from api.bodies import check_json
from api.portal.session import Form
from core.catalogue.methods import METHODS
from core.errors import InvalidRequest
from core.jobs.schemas import JobBody

Kind = Literal["text", "number", "choice", "lines", "pairs", "json", "loose"]
ALL: Final = "all"
"""What null means where a number is expected and unset means another."""
PARAMETERS: Final = "parameters."
METADATA: Final = "metadata"
_LEADING: Final = {"calibration": "dataset", "recovery": "method"}
"""Parts of the body that are sent only where this field of theirs is filled in."""


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
        """What is meant where the field is empty; "" where nothing is."""
        return "" if self.default in (None, [], {}) else " ".join(_texts(self, self.default))


def job_fields(method: str) -> dict[str, Field]:
    """Every field of a job body, with the parameters of a method where it is one of the catalogue."""
    return _body_fields() | _parameter_fields(method)


@cache
def _body_fields() -> dict[str, Field]:
    schema = JobBody.model_json_schema()
    found: dict[str, Field] = {}
    for name, inner in schema["properties"].items():
        part = _resolved(schema, inner)
        if "properties" in part:
            for own, leaf in part["properties"].items():
                found[f"{name}.{own}"] = _field(schema, f"{name}.{own}", leaf)
        elif name != PARAMETERS.rstrip("."):
            found[name] = _field(schema, name, inner)
    return found


@cache
def _parameter_fields(method: str) -> dict[str, Field]:
    if method not in METHODS:
        return {}
    schema = METHODS[method].parameters.model_json_schema()
    return {
        f"{PARAMETERS}{name}": _field(schema, PARAMETERS + name, leaf) for name, leaf in schema["properties"].items()
    }


def _resolved(schema: Mapping[str, Any], inner: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema without its reference, and without null as the one alternative."""
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
        return Field(kind="choice", options=("true", "false"), **facts)
    if kind in ("integer", "number"):
        is_whole = kind == "integer"
        minimum = leaf.get("minimum")
        if minimum is None and not is_whole and "exclusiveMinimum" in leaf:
            minimum = leaf["exclusiveMinimum"]
        return Field(
            kind="number",
            minimum=minimum,
            maximum=leaf.get("maximum"),
            step="1" if is_whole else "any",
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


def read_body(form: Form) -> dict[str, Any]:
    """The body that the fields mean. What cannot be read as the type it should have stays text, for the body's own
    check to name. Raises InvalidRequest where JSON or NAME=VALUE is expected and is not there, and as for any body."""
    method = form.get("method")
    known = job_fields(method)
    body: dict[str, Any] = {}
    for name, values in form.lists.items():
        field = known.get(name)
        if field is not None:
            _put(body, name, _value(field, values))
        elif name.startswith(PARAMETERS):
            body.setdefault("parameters", {})[name.removeprefix(PARAMETERS)] = _json_or_text(values[-1])
        elif name.startswith(f"{METADATA}."):
            body.setdefault(METADATA, {})[name.removeprefix(f"{METADATA}.")] = values[-1]
    for part, leading in _LEADING.items():
        if part in body and leading not in body[part]:
            del body[part]
    check_json(json.dumps(body).encode())
    return body


def _put(body: dict[str, Any], name: str, value: Any) -> None:
    if name == METADATA:
        body[METADATA] = body.get(METADATA, {}) | value
        return
    part, dot, own = name.partition(".")
    if dot:
        body.setdefault(part, {})[own] = value
    else:
        body[part] = value


def _value(field: Field, values: list[str]) -> Any:
    text = values[-1]
    match field.kind:
        case "number":
            return None if field.is_open and text == ALL else _number(text)
        case "choice":
            return {"true": True, "false": False}.get(text, text) if isinstance(field.default, bool) else text
        case "lines":
            return _lines(values)
        case "pairs":
            return _pairs(field, values)
        case "loose":
            return _json_or_text(text)
        case "json":
            try:
                return json.loads(text)
            except (ValueError, RecursionError) as error:
                example = json.dumps(field.default) if field.default else '[0.1, 0.2] or {"r": 8}'
                raise InvalidRequest(
                    f"{field.name}: {text[:100]!r} is not JSON ({error}): write for example {example}", param=field.name
                ) from None
        case _:
            return text


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


def lines_of(form: Form, name: str) -> list[str]:
    """The texts of a field that takes several."""
    return _lines(form.lists.get(name, []))


def _lines(values: list[str]) -> list[str]:
    """One text a line; where one of them does not fit on a line, all together are one JSON list."""
    if len(values) == 1 and values[0].startswith("["):
        given = _json_or_text(values[0])
        if isinstance(given, list) and all(isinstance(each, str) for each in given):
            return given
    return [line.strip() for value in values for line in value.split("\n") if line.strip()]


def _pairs(field: Field, values: list[str]) -> dict[str, str]:
    """One a line; where one does not fit on a line, all together are one JSON object."""
    given = _json_or_text(values[0]) if len(values) == 1 and values[0].startswith("{") else None
    if isinstance(given, dict):
        return given
    pairs: dict[str, str] = {}
    for line in (line.strip() for value in values for line in value.split("\n")):
        name, equals, value = line.partition("=")
        if line and not (equals and name.strip()):
            raise InvalidRequest(f"{field.name}: {line[:100]!r} is no label: write NAME=VALUE", param=field.name)
        if line:
            pairs[name.strip()] = value.strip()
    return pairs


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def form_of(body: Mapping[str, Any]) -> Form:
    """The fields that say a body: `read_body` of them is that body again."""
    known = job_fields(str(body.get("method", "")))
    lists: dict[str, list[str]] = {}
    for name, value in _leaves(body):
        field = known.get(name) or Field(name, "loose", "", "")
        texts = _texts(field, value)
        if texts:
            lists[name] = texts
    return Form(lists)


def _leaves(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in body.items():
        if isinstance(value, Mapping) and name != METADATA:
            yield from ((f"{name}.{own}", inner) for own, inner in value.items())
        else:
            yield name, value


def _texts(field: Field, value: Any) -> list[str]:
    if value is None:
        return [ALL] if field.is_open else ["null"] if field.kind == "json" else []
    match field.kind:
        case "choice" if isinstance(value, bool):
            return [json.dumps(value)]
        case "lines":
            return list(value) if _lines(value) == value else [json.dumps(value)]
        case "pairs":
            is_plain = all("\n" not in each and each == each.strip() for each in value.values())
            written = "\n".join(f"{name}={each}" for name, each in value.items())
            return [written if is_plain else json.dumps(value)] if value else []
        case "loose" if isinstance(value, str):
            return [value if isinstance(_json_or_text(value), str) else json.dumps(value)]
        case "json" | "loose":
            return [json.dumps(value)]
        case _:
            return [str(value)]


def field_at_fault(param: str | None, names: Mapping[str, Any]) -> str | None:
    """The field that an error's `param` is about: itself, the field it lies in, or the first field of that part."""
    if param is None:
        return None
    shorter = param
    while shorter:
        if shorter in names:
            return shorter
        shorter = shorter.rpartition(".")[0]
    part = param.partition(".")[0]
    leading = f"{part}.{_LEADING.get(part, '')}"
    return leading if leading in names else next((name for name in names if name.startswith(f"{param}.")), None)


def minimal(body: JobBody) -> dict[str, Any]:
    """The body without what would be filled in anyway."""
    least: dict[str, Any] = body.model_dump(mode="json", exclude_defaults=True, exclude={"parameters"})
    recovery = body.recovery
    if recovery is not None and recovery.method == "distill" and "lora" in recovery.model_fields_set:
        least["recovery"].setdefault("lora", None)  # trains every parameter, where unset trains adapters
    parameters = _minimal_parameters(body.method, body.parameters)
    if parameters:
        least["parameters"] = parameters
    order = list(JobBody.model_fields)
    return dict(sorted(least.items(), key=lambda item: order.index(item[0])))


def _minimal_parameters(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those whose absence would change what is meant; all where they mean nothing yet."""
    least = dict(given)
    if method not in METHODS:
        return least
    parse = METHODS[method].parameters.model_validate
    try:
        meant = parse(least)
        for name in given:
            without = {other: value for other, value in least.items() if other != name}
            if parse(without).model_dump() == meant.model_dump():
                least = without
    except ValueError:
        return dict(given)
    return least
