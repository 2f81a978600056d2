"""Architectures: each is a module of `overrides` that nothing else of the product names, and the documents list it."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from core.engine.architectures import overrides
from core.engine.architectures.registry import CLASSIFIER_ARCHITECTURES, LANGUAGE_ARCHITECTURES

ROOT = Path(__file__).parents[3]
ALL = LANGUAGE_ARCHITECTURES | CLASSIFIER_ARCHITECTURES
ELSEWHERE = (
    "core/engine/architectures/overrides/",
    "core/engine/models/gguf_",
    "core/engine/exporters/gguf/",
    "api/openapi/examples/",
)
"""Its own file; those of GGUF, which has names of its own for some; examples, which are of some model."""


@pytest.mark.parametrize("name", ALL)
def test_each_is_declared_in_the_module_of_its_model_type(name: str) -> None:
    module = import_module(f"{overrides.__name__}.{ALL[name].model_type}")
    assert module.ARCHITECTURE is ALL[name]


def test_nothing_else_of_the_product_names_one() -> None:
    names = {each.model_type for each in ALL.values()} | ALL.keys()
    quoted = re.compile(rf"""["']({"|".join(names)})["']""")
    files = [file for package in ("api", "core", "worker") for file in (ROOT / package).rglob("*.py")]
    named = {
        (path, name)
        for file in files
        if not (path := file.relative_to(ROOT).as_posix()).startswith(ELSEWHERE)
        for name in quoted.findall(file.read_text(encoding="utf-8"))
    }
    assert named == {("core/engine/architectures/classifier_architecture.py", "secateur_reference")}  # of this project


def test_the_documents_list_all_that_there_are() -> None:
    titles = ", ".join(each.title for each in LANGUAGE_ARCHITECTURES.values())
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"Families: {titles}, and other decoders" in readme
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    rows = [
        f"| {each.title} | `{each.architecture}` | {'yes' if each.axes('heads') else 'no'} | "
        f"{'yes' if each.added_to_stream else 'no'} |\n"
        for each in LANGUAGE_ARCHITECTURES.values()
    ]
    rows += [f"| {each.title} | `{each.architecture}` |\n" for each in CLASSIFIER_ARCHITECTURES.values()]
    assert [row for row in rows if row not in page] == []
