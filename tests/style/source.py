"""Files of the product, read and parsed once."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "core", "worker", "client/src", "migrations")
_NOT_WALKED = (ast.expr_context, ast.operator, ast.cmpop, ast.unaryop, ast.boolop)


@dataclass(frozen=True)
class Source:
    """A file: its path in the repository, its text, its tree, and every node of it, whose operators are left out."""

    file: str
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]

    @property
    def module(self) -> str:
        """Return the dotted name it is imported by."""
        path = self.file.removeprefix("client/src/").removesuffix(".py").removesuffix("/__init__")
        return path.replace("/", ".")

    @property
    def lines(self) -> int:
        return self.text.count("\n")


def parsed(file: str, text: str) -> Source:
    """Return a file of which the text is given."""
    tree = ast.parse(text)
    return Source(file, text, tree, tuple(_walk(tree)))


@cache
def product() -> tuple[Source, ...]:
    """Return every file of the product, by path."""
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return tuple(parsed(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")) for file in files)


def _walk(root: ast.AST) -> Iterator[ast.AST]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                waiting += [each for each in value if isinstance(each, ast.AST) and not isinstance(each, _NOT_WALKED)]
            elif isinstance(value, ast.AST) and not isinstance(value, _NOT_WALKED):
                waiting.append(value)
