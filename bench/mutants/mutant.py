"""Mutants: faults put into a copy of the product one at a time, to see whether some test notices.

cosmic-ray makes the change. Its own operators make the small ones that any program can have; `Exchange` is an operator
for faults written by hand, kept as TOML in `changes`, a file an area.
"""

import ast
import hashlib
import json
import random
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PRODUCT = ("api", "core", "worker", "client/src")
FILES_OF_A_SAMPLE = 6


class NotApplicable(ValueError):
    """A mutant that does not fit the tree: its list is out of date."""


class Operator(Protocol):
    """Operator of cosmic-ray: positions in a node of parso's tree that it can change, and the change."""

    def mutation_positions(self, node: Any) -> Iterable[Any]: ...
    def mutate(self, node: Any, index: int) -> Any: ...


@dataclass(frozen=True)
class Exchange:
    """Operator that puts one text in the place of another, which a module has once."""

    old: str
    new: str

    def fits(self, source: str) -> bool:
        """Return whether it can be applied to a module, once, and changes something."""
        return source.count(self.old) == 1 and self.old != self.new

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "file_input" and self.fits(node.get_code()):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return get_ast(node.get_code().replace(self.old, self.new))


@dataclass(frozen=True)
class Mutant:
    """One fault of a file. `tests` are nodes of pytest; `survives` says why no test can notice it, where that is so."""

    name: str
    file: str
    operator: Operator
    occurrence: int = 0
    tests: tuple[str, ...] = ()
    survives: str = ""

    def applied(self, source: str) -> str:
        """Return the text of its file with the change made. Raises NotApplicable."""
        changed: str | None = mutate_code(source, self.operator, self.occurrence)
        if changed is None:
            raise NotApplicable(f"{self.name}: its place is not found once in {self.file}, or nothing changes")
        return changed

    def key(self, root: Path) -> str:
        """Return the name its result is kept under: the file, the change, and the tests."""
        source = (root / self.file).read_text("utf-8")
        folders = {(root / test.partition("::")[0]).parent for test in self.tests} | {root / "tests"}
        texts = [file.read_text("utf-8") for folder in sorted(folders) for file in sorted(folder.glob("*.py"))]
        facts = [self.file, source, self.applied(source), self.tests, texts]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]


def by_hand(name: str, file: str, old: str, new: str, tests: Sequence[str] = (), survives: str = "") -> Mutant:
    """Return a mutant as the lists have it: in `file`, `new` takes the place of `old`."""
    return Mutant(name, file, Exchange(old, new), tests=tuple(tests), survives=survives)


def read_mutants(folder: Path = HERE / "changes") -> list[Mutant]:
    """Return the mutants written by hand, area by area. Raises NotApplicable where two have one name."""
    tables = [table for file in sorted(folder.glob("*.toml")) for table in tomllib.loads(file.read_text())["mutant"]]
    names = [table["name"] for table in tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise NotApplicable(f"more than one mutant is named {', '.join(twice)}")
    return [by_hand(**table) for table in tables]


def sampled_mutants(count: int, seed: int) -> list[Mutant]:
    """Return so many of the mutants that cosmic-ray's own operators make of the product, drawn by the seed.

    A file is drawn by its length, then one of its mutants. Its tests are the `FILES_OF_A_SAMPLE` files of tests nearest
    to it by imports, and among these the ones that import least.
    """
    draw, mutants = random.Random(seed), dict[str, Mutant]()
    texts = {path: path.read_text("utf-8") for part in PRODUCT for path in sorted((ROOT / part).rglob("*.py"))}
    nearest = _Importers(texts)
    while len(mutants) < count:
        (path,) = draw.choices(list(texts), [len(text) for text in texts.values()])
        if possible := list(_mutants_of(path, texts[path])):
            chosen = draw.choice(possible)
            if tests := nearest.tests(path):
                mutants[chosen.name] = replace(chosen, tests=tests)
    return list(mutants.values())


def _mutants_of(path: Path, text: str) -> Iterator[Mutant]:
    nodes, file = list(ast_nodes(get_ast(text))), str(path.relative_to(ROOT))
    for name in plugins.operator_names():
        if (operator_class := plugins.get_operator(name)).arguments():
            continue
        operator = operator_class()
        places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, column) in enumerate(places):
            title = f"{file}:{line}:{column} {name.partition('/')[2]} {occurrence}"
            yield Mutant(title, file, operator, occurrence)


class _Importers:
    """Files of tests by how near they are to a file of the product: over as few imports as possible."""

    def __init__(self, product: Mapping[Path, str]) -> None:
        tests = {path: path.read_text("utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))}
        self._imports = {path: imported_names(text) for path, text in {**product, **tests}.items()}

    def tests(self, path: Path) -> tuple[str, ...]:
        known, nearest = {path}, {path}
        while nearest:
            names = {_module(each) for each in nearest}
            nearest = {each for each, imports in self._imports.items() if imports & names} - known
            known |= nearest
            if found := [each for each in nearest if each.name.startswith("test_")]:
                found.sort(key=lambda each: (len(self._imports[each]), each))
                return tuple(str(each.relative_to(ROOT)) for each in found[:FILES_OF_A_SAMPLE])
        return ()


def _module(path: Path) -> str:
    place = path.relative_to(ROOT).with_suffix("")
    return ".".join(place.parts).removeprefix("client.src.").removesuffix(".__init__")


def imported_names(text: str) -> set[str]:
    """Return the modules that a module imports, and whatever it takes from them, as if that were modules too."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return names
