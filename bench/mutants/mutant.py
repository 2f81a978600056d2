"""A mutant: one small fault in one file of the product, and the tests that should notice it.

They are kept as TOML, a file an area, in `changes`: `old` is found exactly once in `file`, and `new` takes its place.
"""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHANGES = Path(__file__).parent / "changes"


class NotApplicable(ValueError):
    """A mutant that does not fit the tree: its list is out of date."""


@dataclass(frozen=True)
class Mutant:
    """One fault. `tests` are nodes of pytest; `survives` says why no test can notice it, where that is so."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str | None = None

    def applied(self, source: str) -> str:
        """Return the text of its file with the change made. Raises NotApplicable."""
        found = source.count(self.old)
        if found != 1:
            raise NotApplicable(f"{self.name}: its old text is found {found} times in {self.file}, not once")
        if self.new == self.old:
            raise NotApplicable(f"{self.name}: changes nothing")
        return source.replace(self.old, self.new)

    def test_files(self) -> list[str]:
        return sorted({test.partition("::")[0] for test in self.tests})

    def key(self, root: Path) -> str:
        """Return the name its result is kept under: the change, the file it is made to, and the tests."""
        folders = {(root / file).parent for file in self.test_files()} | {root / "tests"}
        sources = [root / self.file, *sorted(file for folder in folders for file in folder.glob("*.py"))]
        facts = [asdict(self), *(hashlib.sha256(file.read_bytes()).hexdigest() for file in sources)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def read_mutants(folder: Path = CHANGES) -> list[Mutant]:
    """Return all mutants of a folder, area by area. Raises NotApplicable where two have one name."""
    mutants = [_mutant(table) for file in sorted(folder.glob("*.toml")) for table in _tables(file)]
    names = [each.name for each in mutants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise NotApplicable(f"more than one mutant is named {', '.join(twice)}")
    return mutants


def _tables(file: Path) -> list[dict[str, Any]]:
    return list(tomllib.loads(file.read_text("utf-8"))["mutant"])


def _mutant(table: dict[str, Any]) -> Mutant:
    return Mutant(**table | {"tests": tuple(table["tests"])})
