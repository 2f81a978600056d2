"""Answers as the server makes them: it gives every field, also those that a client can do without."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

from secateur_wire.base import WireModel

ROOT = Path(__file__).parents[2]


def made(source: str) -> Iterator[tuple[type[WireModel], ast.Call]]:
    """Yield every answer that a source makes by its fields' names."""
    tree = ast.parse(source)
    types: dict[str, type[WireModel]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.endswith(("schemas", *WIRE)):
            for each in node.names:
                kind = getattr(importlib.import_module(node.module), each.name)
                if isinstance(kind, type) and issubclass(kind, WireModel):
                    types[each.asname or each.name] = kind
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id in types and all(each.arg for each in call.keywords):
            yield types[call.func.id], call


WIRE = tuple(f"secateur_wire.{file.stem}" for file in (ROOT / "client/src/secateur_wire").glob("*.py"))
SOURCES = [file for folder in ("api", "core/service") for file in sorted((ROOT / folder).rglob("*.py"))]


def test_the_server_gives_every_field() -> None:
    found, lacking = 0, []
    for file in SOURCES:
        for kind, call in made(file.read_text(encoding="utf-8")):
            found += 1
            given = {keyword.arg for keyword in call.keywords} | {"object"}
            if given != kind.model_fields.keys() | {"object"}:
                lacking.append(f"{file.relative_to(ROOT)}:{call.lineno}: {kind.__name__}")
    assert found > 25
    assert not lacking
