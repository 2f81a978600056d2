"""Sizes of the product, and how large each may be: `python -m tests.style.sizes` prints them as a table.

`--files` lists under each figure the places that it counts; `--write` lowers what is allowed, in sizes.toml, to what
there is. A figure with a slack may move by it without a word, so that an ordinary change need not touch the file.
"""

import ast
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import grimp

from tests.style.source import ROOT, Source, product

ALLOWED = Path(__file__).with_name("sizes.toml")
_ROOTS = ("core", "api", "worker", "migrations", "secateur", "secateur_wire")
_ENGINE = ("core/engine/", "core/methods/")
_MEMORY_ACCOUNT = ("memory.py", "cost.py", "costs.py", "classifier_trace.py")
_COSTS = frozenset({"Cost", "GradientCost", "AdapterCost", "ClassifierCost", "FilterCost"})
_SIX = 6

Places = list[tuple[str, float]]
"""Places that a figure counts, each with what it adds."""


@dataclass(frozen=True)
class Figure:
    """A size: why it matters, what it is to become, how far it may move, and the function that finds its places."""

    why: str
    aim: float
    slack: float
    places: Callable[[], Places]

    @property
    def value(self) -> float:
        return sum(amount for _, amount in self.places())


def problem(figure: Figure, value: float, most: float) -> str | None:
    """Return what is wrong with a figure where so much is allowed; None where nothing is."""
    if value > most:
        return f"{_written(value)}, and {_written(most)} at most: {figure.why}"
    if value < most - figure.slack:
        return f"{_written(value)}: lower the ratchet to {_written(_allowed_at(figure, value))}"
    return None


def allowed() -> dict[str, float]:
    ratchets: dict[str, float] = tomllib.loads(ALLOWED.read_text(encoding="utf-8")) if ALLOWED.exists() else {}
    return ratchets


def _lines_of(*folders: str) -> Callable[[], Places]:
    return lambda: [(source.file, source.lines) for source in product() if source.file.startswith(folders)]


def _lines_beside(folder: str) -> Callable[[], Places]:
    """Return the places of Python files that are not of the product."""

    def places() -> Places:
        files = sorted((ROOT / folder).rglob("*.py"))
        return [(file.relative_to(ROOT).as_posix(), file.read_bytes().count(b"\n")) for file in files]

    return places


def _files() -> Places:
    return [(source.file, 1) for source in product()]


def _memory_account() -> Places:
    places: Places = []
    for source in product():
        if source.file.startswith("core/service/jobs/estimates/") or _accounts_for_memory(source.file):
            places.append((source.file, source.lines))
        elif source.file.startswith("core/methods/"):
            places += _cost_classes(source)
    return places


def _accounts_for_memory(file: str) -> bool:
    return file.startswith(_ENGINE) and file.endswith(_MEMORY_ACCOUNT)


def _cost_classes(source: Source) -> Iterator[tuple[str, float]]:
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(each.value if isinstance(each, ast.Subscript) else each) for each in node.bases}
            if bases & _COSTS:
                yield f"{source.file}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def _functions_of_six_parameters() -> Places:
    places: Places = []
    for source in product():
        for node in source.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                each = node.args
                count = len(each.posonlyargs) + len(each.args) + len(each.kwonlyargs)
                if count >= _SIX:
                    places.append((f"{source.file}:{node.lineno} {node.name}, {count}", 1))
    return places


@cache
def graph() -> grimp.ImportGraph:
    """Return what imports what in the product."""
    return grimp.build_graph(*_ROOTS, cache_dir=None)


def _modules_with_one_importer() -> Places:
    imports = graph()
    modules = (module for module in sorted(imports.modules) if not imports.find_children(module))
    importers = ((module, imports.find_modules_that_directly_import(module)) for module in modules)
    return [(f"{module}, by {next(iter(by))}", 1) for module, by in importers if len(by) == 1]


def _own_imports() -> Places:
    imports = graph()
    return [(module, len(imports.find_modules_directly_imported_by(module))) for module in sorted(imports.modules)]


def _packages_that_import_each_other() -> Places:
    imports = graph()
    places: Places = []
    for package in sorted({module.rpartition(".")[0] for module in imports.modules} - {""}):
        owners = {
            module: child
            for child in imports.find_children(package)
            for module in (child, *imports.find_descendants(child))
        }
        pairs = {
            (owner, owners[imported])
            for module, owner in owners.items()
            for imported in imports.find_modules_directly_imported_by(module)
            if owners.get(imported, owner) != owner
        }
        both = (pair for pair in combinations(sorted(set(owners.values())), 2) if {pair, pair[::-1]} <= pairs)
        places += [(f"{one} and {other}", 1) for one, other in both]
    return places


FIGURES = {
    "product_lines": Figure("every line is read by whoever changes it", 82_000, 2_000, _lines_of("")),
    "product_files": Figure("a reader finds the room from the file tree alone", 740, 20, _files),
    "engine_and_methods_lines": Figure(
        "the mathematics is where errors hide longest", 32_000, 800, _lines_of(*_ENGINE)
    ),
    "bench_lines": Figure(
        "a bench is kept up like the product, and users get none of it", 10_000, 500, _lines_beside("bench")
    ),
    "test_lines": Figure(
        "a change of one idea should not have to edit copies of it in tests", 52_000, 2_000, _lines_beside("tests")
    ),
    "modules_with_one_importer": Figure(
        "a splinter of its importer: two files for one idea", 140, 6, _modules_with_one_importer
    ),
    "packages_that_import_each_other": Figure(
        "neither can be read, tested or changed without the other", 0, 0, _packages_that_import_each_other
    ),
    "functions_with_six_parameters": Figure(
        "values that travel together are one thing without a name", 100, 6, _functions_of_six_parameters
    ),
    "memory_account_lines": Figure(
        "a second engine: every edit of a solver needs one there too", 1_000, 100, _memory_account
    ),
    "own_imports": Figure("how many rooms readers enter to understand others, in all files", 2_720, 80, _own_imports),
}
"""The figures by name. The count of checks of option classes is kept in ratchets.toml, with the other rules."""


def _allowed_at(figure: Figure, value: float) -> float:
    """Return the ratchet for a value: half of the slack above it."""
    most = value + figure.slack / 2
    return float(int(most))


def _written(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def _table() -> Iterator[str]:
    most = allowed()
    yield "| size | now | at most | aim | why it matters |"
    yield "|:--|--:|--:|--:|:--|"
    for name, figure in FIGURES.items():
        cells = (figure.value, most.get(name, 0), figure.aim)
        yield f"| {name.replace('_', ' ')} | {' | '.join(map(_written, cells))} | {figure.why} |"


def _listed() -> Iterator[str]:
    for name, figure in FIGURES.items():
        places = [(place, amount) for place, amount in figure.places() if amount]
        yield f"\n{name.replace('_', ' ')}: {_written(figure.value)} from {len(places)} places"
        yield from (f"  {place}  {_written(amount)}" for place, amount in places)


def main() -> None:
    if "--write" in sys.argv:
        before = allowed()
        lines = []
        for name, figure in FIGURES.items():
            most = min(_allowed_at(figure, figure.value), before.get(name, float("inf")))
            if name in before and problem(figure, figure.value, before[name]) is None:
                most = before[name]  # it moves within its slack
            lines.append(f"{name} = {_written(most).replace(',', '_')}  # {figure.why}")
        ALLOWED.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    print("\n".join(_table()))
    if "--files" in sys.argv:
        print("\n".join(_listed()))


if __name__ == "__main__":
    main()
