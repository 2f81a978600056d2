"""Parts of generated pages, as Markdown."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; line breaks and bars within cells are escaped."""
    lines = [header, [":--"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def fields(schema: Mapping[str, Any]) -> list[list[str]]:
    """Return name, kind, default and description of each property of a JSON schema."""
    required = schema.get("required", [])
    return [
        [
            f"`{name}`",
            kind(each),
            "required" if name in required else f"`{json.dumps(each.get('default'), ensure_ascii=False)}`",
            each.get("description", ""),
        ]
        for name, each in schema.get("properties", {}).items()
    ]


def kind(schema: Mapping[str, Any]) -> str:
    """Return the kind of a JSON schema's values in words, with their bounds."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(kind(each) for each in choices if each.get("type") != "null")) or "null"
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}"
    lowest = next((f"{sign} {schema[key]}" for key, sign in _LOWEST if key in schema), "")
    highest = next((f"{sign} {schema[key]}" for key, sign in _HIGHEST if key in schema), "")
    return ", ".join(filter(None, [_KINDS.get(schema.get("type", ""), schema.get("type", "any")), lowest, highest]))


_LOWEST = (("minimum", "≥"), ("exclusiveMinimum", ">"))
_HIGHEST = (("maximum", "≤"), ("exclusiveMaximum", "<"))
_KINDS = {"boolean": "true or false", "string": "text", "integer": "whole number"}


def _cell(text: str) -> str:
    return _BAR.sub(lambda part: part["code"] or r"\|", " ".join(text.split()))


_BAR = re.compile(r"(?P<code>`[^`]*`)|\|")
"""Code, in which a bar divides no cells, or a bar."""
