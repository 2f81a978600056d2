"""Places that break the house's rules of names and docstrings, and how many there may be of each kind.

`python -m tests.style.names` lists them; `--write` lowers what is allowed to what there is. Sources are parsed, nothing
is imported.
"""

import ast
import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tests.style.finding import Finding
from tests.style.source import Source, parsed, product

RATCHETS = Path(__file__).with_name("ratchets.toml")

_FIRST_WORDS = re.compile(
    r"What|Who|Whose|Of|Where|How|Which|Whether|When|By|For|From|As|In|On|With|Without|That|Those|These|To|Beside|"
    r"Between|About|Once|It"
)
_WORDS = re.compile(
    r"told|tell|trail|hollow|held|shelf|knowledge|scene|surgeon|heart|chore|made|asked|found|whole|beside|apart|aside|"
    r"means|faults?|news|keeping|patience|gone"
)
_PUBLIC = frozenset({"NotFound", "connection_made", "held_aside", "hub_patience_seconds", "tell"})
"""Names that stay: those of REST, the client's errors, the environment, and Python's files and connections."""
_DEVICES = ("core/device_kinds.py", "core/engine/models/accelerator.py")
"""The modules that may tell kinds of devices apart: facts of each without torch, and the interface to each."""
_DEVICE = re.compile(r"cuda(:\d+)?|/dev/nvidia.*|torch\.cuda\..*")
_LONGEST_FILE = 500


@cache
def findings() -> list[Finding]:
    """Return every place in the product that breaks a rule, by rule, file and line."""
    sources = product()
    found = [finding for source in sources for finding in _in_source(source)]
    found += _namesakes(sources)
    return sorted(found, key=lambda each: (each.rule, each.file, each.line))


@cache
def counts() -> dict[str, int]:
    """Return how often each rule is broken; every rule is there, those that hold with 0."""
    rules = dict.fromkeys(sorted(_RULES), 0)
    return rules | Counter(each.rule for each in findings())


def allowed() -> dict[str, int]:
    ratchets: dict[str, int] = tomllib.loads(RATCHETS.read_text(encoding="utf-8"))
    return ratchets


_RULES = {
    "device_kind": "a kind of device named or compared with, or torch.cuda used, outside the accelerator's module",
    "docstring_first_word": "a summary names the thing or, of a function, what it does: 'Return the …'",
    "word_of_our_own": "an identifier has a word that is not the field's",
    "namesake": "two public classes have one name",
    "paper": "a method's module does not name its paper",
    "long_file": f"a file of more than {_LONGEST_FILE} lines",
}


def findings_in(name: str, source: str) -> Iterator[Finding]:
    """Yield the places in one file; `name` is its path in the repository."""
    yield from _in_source(parsed(name, source))


def _in_source(source: Source) -> Iterator[Finding]:
    name, tree, lines = source.file, source.tree, source.lines

    def finding(rule: str, line: int, text: str) -> Finding:
        return Finding(rule, name, line, text)

    if lines > _LONGEST_FILE:
        yield finding("long_file", lines, f"{lines} lines")
    if _is_of_a_method(name) and not _names_a_paper(tree):
        yield finding("paper", 1, "no paper in the module's docstring")
    for node in source.nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = (ast.get_docstring(node) or "").split(maxsplit=1)
            if first and _FIRST_WORDS.fullmatch(first[0].strip("`,:")):
                yield finding("docstring_first_word", getattr(node, "lineno", 1), first[0])
        if name.startswith(("core/", "worker/")) and name not in _DEVICES and _tells_devices_apart(node):
            yield finding("device_kind", getattr(node, "lineno", 1), ast.unparse(node))
        for identifier, line in _identifiers(node):
            words = re.split(r"_|(?<=[a-z0-9])(?=[A-Z])", identifier)
            if identifier not in _PUBLIC and any(_WORDS.fullmatch(word.lower()) for word in words):
                yield finding("word_of_our_own", line, identifier)


def _namesakes(sources: Iterable[Source]) -> Iterator[Finding]:
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for source in sources:
        for node in source.tree.body if not source.file.startswith("client/") else ():
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append((source.file, node.lineno))
    for name, found in places.items():
        for file, line in found[1:]:
            yield Finding("namesake", file, line, f"{name}, as in {found[0][0]}")


def _is_of_a_method(name: str) -> bool:
    return re.fullmatch(r"core/methods/((?!engine|method_info|registry|__init__)\w+|\w+/method)\.py", name) is not None


def _names_a_paper(tree: ast.Module) -> bool:
    return re.search(r"arXiv|doi|NeurIPS|NIPS|ICLR|ICML|\b(19|20)\d\d\b", ast.get_docstring(tree) or "") is not None


def _tells_devices_apart(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=str() as text):
            return _DEVICE.fullmatch(text) is not None
        case ast.Attribute(value=ast.Name("torch"), attr="cuda") | ast.Attribute(attr="is_cuda"):
            return True
        case ast.Import(names=names):
            return any(f"{each.name}.".startswith("torch.cuda.") for each in names)
        case ast.ImportFrom(module=str() as module, names=names):
            return any(f"{module}.{each.name}.".startswith("torch.cuda.") for each in names)
        case ast.Compare(left=left, comparators=others):
            return any(isinstance(each, ast.Constant) and each.value == "cpu" for each in (left, *others))
        case _:
            return False


def _identifiers(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the names a node defines: functions, classes, arguments, variables."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name, node.lineno
    elif isinstance(node, ast.arg):
        yield node.arg, node.lineno
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id, node.lineno


def main() -> None:
    if "--write" in sys.argv:
        before = allowed() if RATCHETS.exists() else {}
        fewest = {rule: min(count, before.get(rule, count)) for rule, count in counts().items()}
        lines = [f"{rule} = {count}  # {_RULES[rule]}" for rule, count in fewest.items()]
        RATCHETS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        for each in findings():
            print(f"{each.rule}  {each}")


if __name__ == "__main__":
    main()
