"""Mutants: faults put into a copy of the product one at a time, to see whether some test notices.

cosmic-ray makes the change. Its own operators make the small ones that any program can have; `Exchange` is an operator
for faults written by hand, kept as TOML in `changes`, a file an area.
"""

import hashlib
import json
import random
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


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


def sampled_mutants(count: int, seed: int, file: Path = HERE / "sampled.toml") -> list[Mutant]:
    """Return so many of the mutants that cosmic-ray's own operators make of the listed modules, drawn by the seed."""
    mutants = []
    for module in tomllib.loads(file.read_text())["module"]:
        nodes = list(ast_nodes(get_ast((ROOT / module["file"]).read_text("utf-8"))))
        for name in plugins.operator_names():
            if (operator_class := plugins.get_operator(name)).arguments():
                continue
            operator = operator_class()
            places = [start for node in nodes for start, _ in operator.mutation_positions(node)]
            for occurrence, (line, column) in enumerate(places):
                title = f"{module['file']}:{line}:{column} {name.partition('/')[2]} {occurrence}"
                mutants.append(Mutant(title, module["file"], operator, occurrence, tuple(module["tests"])))
    return random.Random(seed).sample(mutants, min(count, len(mutants)))
