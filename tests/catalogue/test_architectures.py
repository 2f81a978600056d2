"""Architectures: each is a module of `overrides` that nothing else of the product names, and the documents list it."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

from core.engine.architectures import overrides
from core.engine.architectures.registry import CLASSIFIER_ARCHITECTURES, LANGUAGE_ARCHITECTURES

ROOT = Path(__file__).parents[2]
ALL = LANGUAGE_ARCHITECTURES | CLASSIFIER_ARCHITECTURES
ELSEWHERE = ("core/engine/models/gguf_", "api/openapi/examples/")
"""Files that may name one: GGUF files have names of their own for some of them, and an example is of a model."""


@pytest.mark.parametrize("name", ALL)
def test_each_is_declared_in_the_module_of_its_model_type(name: str) -> None:
    module = import_module(f"{overrides.__name__}.{ALL[name].model_type}")
    assert module.ARCHITECTURE is ALL[name]


def test_nothing_else_of_the_product_names_one() -> None:
    names = {each.model_type for each in ALL.values()} | ALL.keys()
    files = [file for package in ("api", "core", "worker") for file in (ROOT / package).rglob("*.py")]
    named = {
        (path, node.value)
        for file in files
        if not (path := file.relative_to(ROOT).as_posix()).startswith(ELSEWHERE)
        and not file.is_relative_to(Path(overrides.__file__).parent)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert named == {("core/engine/architectures/classifier_architecture.py", "secateur_reference")}  # of this project


def test_the_documents_list_all_that_there_are() -> None:
    titles = ", ".join(each.title for each in LANGUAGE_ARCHITECTURES.values())
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"Families: {titles};" in readme
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    rows = [
        f"| {each.title} | `{each.architecture}` | {'yes' if each.heads else 'no'} | "
        f"{'yes' if each.stream_norms else 'no'} |\n"
        for each in LANGUAGE_ARCHITECTURES.values()
    ]
    rows += [f"| {each.title} | `{each.architecture}` |\n" for each in CLASSIFIER_ARCHITECTURES.values()]
    assert [row for row in rows if row not in page] == []
