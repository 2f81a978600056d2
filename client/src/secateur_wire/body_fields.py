"""Fields of a job body, as its JSON schema and the table of `job_fields` describe them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from pydantic import BaseModel

from secateur_wire.job_fields import ENTRIES, LEADING, Entry

Kind = Literal["text", "number", "choice", "lines", "pairs", "json", "loose"]
YES_OR_NO: Final = ("true", "false")


@dataclass(frozen=True)
class Field:
    """Field of a request, described by its JSON schema and the table.

    `kind` lines: texts, one per line; pairs: NAME=VALUE, one per line; json: JSON; loose: JSON, or else text. The
    bounds apply to numbers, `options` to choices. `is_open` says that a number may be null, where an empty field has
    another meaning.
    """

    entry: Entry
    kind: Kind
    type: str = ""
    description: str = ""
    default: Any = None
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    is_open: bool = False

    @property
    def name(self) -> str:
        return self.entry.path

    @property
    def label(self) -> str:
        return self.entry.label or self.name.rpartition(".")[2].replace("_", " ").capitalize()

    @property
    def hint(self) -> str:
        return self.entry.hint or self.description

    @property
    def takes_all(self) -> bool:
        """Return whether it is a number for which `all`, null in the body, is allowed."""
        return self.is_open or self.entry.empty == "all"


@cache
def body_fields(body: type[BaseModel]) -> Mapping[str, Field]:
    """Return every field of a job body by its path: first those of the table in its order, then all others."""
    schema = body.model_json_schema()
    leaves = dict(_leaves(schema))
    in_order = [*(path for path in ENTRIES if path in leaves), *(path for path in leaves if path not in ENTRIES)]
    return {path: _field(schema, path, leaves[path]) for path in in_order}


@cache
def parameter_fields(parameters: type[BaseModel]) -> Mapping[str, Field]:
    """Return the fields of a method's parameters by their paths in the body."""
    schema = parameters.model_json_schema()
    return {path: _field(schema, path, leaf) for path, leaf in _members(schema, "parameters", schema)}


def _leaves(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, inner in schema["properties"].items():
        part = _resolved(schema, inner)
        if "properties" in part:
            yield from _members(schema, name, part)
        elif name != "parameters":
            yield name, inner


def _members(schema: Mapping[str, Any], name: str, part: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the members of an object by path. An object whose members stand in the table is replaced by its members."""
    for own, leaf in part["properties"].items():
        path = f"{name}.{own}"
        if path in LEADING:
            yield from _members(schema, path, _resolved(schema, leaf))
        else:
            yield path, leaf


def _resolved(schema: Mapping[str, Any], inner: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema with its reference resolved, and without null as an alternative."""
    alternatives = [each for each in inner.get("anyOf", ()) if each.get("type") != "null"]
    if len(alternatives) == 1:
        inner = {**inner, **alternatives[0]}
    if "$ref" in inner:
        inner = {**schema["$defs"][inner["$ref"].rpartition("/")[2]], **inner}
    return inner


def _field(schema: Mapping[str, Any], path: str, inner: Mapping[str, Any]) -> Field:
    leaf = _resolved(schema, inner)
    is_number = leaf.get("type") in ("integer", "number")
    default = leaf.get("default")
    minimum = leaf.get("minimum")
    if minimum is None and leaf.get("type") == "number":
        minimum = leaf.get("exclusiveMinimum")
    return Field(
        entry=ENTRIES.get(path) or Entry(path),
        kind=_kind(leaf),
        type=leaf.get("type", ""),
        description=leaf.get("description", ""),
        default=default,
        options=_options(leaf),
        minimum=minimum,
        maximum=leaf.get("maximum"),
        is_open=is_number and default is not None and {"type": "null"} in inner.get("anyOf", ()),
    )


def _options(leaf: Mapping[str, Any]) -> tuple[str, ...]:
    if leaf.get("type") == "boolean":
        return YES_OR_NO
    return (leaf["const"],) if "const" in leaf else tuple(leaf.get("enum", ()))


def _kind(leaf: Mapping[str, Any]) -> Kind:
    kind = leaf.get("type")
    if _options(leaf):
        return "choice"
    if kind in ("integer", "number"):
        return "number"
    if kind == "string":
        return "text"
    if kind == "array" and leaf.get("items", {}).get("type") == "string":
        return "lines"
    if kind == "object" and any(each.get("type") == "string" for each in leaf.get("patternProperties", {}).values()):
        return "pairs"
    return "loose" if "anyOf" in leaf and kind is None else "json"
