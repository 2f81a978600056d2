"""Places that ask which class of options, which id or which kind of model they have, instead of calling it.

A class is an option class by where it is defined: it lies in core/engine/options, or a class that does is its base,
directly or not, whatever either is called. The folder that defines a class may ask for it, as core/methods/flap may for
its own parameters; every other place counts. So do comparisons with an id of a method, a pattern or a kind of removal,
and those that tell descriptions of language models and classifiers apart.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.style.finding import Finding
from tests.style.source import Source

_OPTIONS = "core/engine/options/"
_DESCRIPTIONS = "core/engine/architectures/"
_PLAIN_IN_OPTIONS = "core.engine.options.patterns"
"""The module whose named patterns are ids as their texts are."""
_TASKS = frozenset({"language-model", "image-classification"})
_PARAMETERS = "core.engine.options.base.MethodParameters"
_METHODS = "core/methods/"
_ASKING = (ast.Call, ast.Compare, ast.Match, ast.MatchClass)
_ID_LISTS = ("PatternFamily", "Removed")
_OTHER_LISTS = frozenset({"goal", "row", "stage", "task"})
"""Names of values that are of other lists, whose words are the same: a stage and a method are called 'recover'."""

_WORDS_OF_OTHER_LISTS = frozenset({"none"})
"""Ids that many other lists have too, such as what a method reads, and which heads go."""

_ASKED, _COMPARED, _TASK = "option_class_asked_for", "id_compared", "task_asked_for"
RULES = {
    _ASKED: "isinstance, issubclass, match, type(x) is or hasattr of an option class, outside its room",
    _COMPARED: "an id of a method, a pattern or a kind of removal that is compared with",
    _TASK: "language models and classifiers told apart, outside the module that describes them",
}


@dataclass
class Definitions:
    """Classes and ids of the product that no other room may ask for.

    `options` and `descriptions` give the folder of each class by its dotted name; `names` what each name of a module
    stands for, aliases of several classes too; `members` are attributes of option classes.
    """

    names: dict[str, dict[str, frozenset[str]]] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    members: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)

    def classes(self, module: str, node: ast.expr) -> frozenset[str]:
        """Return the dotted names of what an expression may stand for: one class, several of a tuple, or of a union."""
        match node:
            case ast.Name(name):
                return self.resolved(module, name)
            case ast.Attribute(value=value, attr=attribute):
                owners = self.classes(module, value)
                return frozenset().union(*(self.resolved(owner, attribute) for owner in owners))
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                return frozenset().union(*(self.classes(module, part) for part in parts))
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self.classes(module, left) | self.classes(module, right)
            case ast.Subscript(value=value):  # Cost[Options], Union[…] and Annotated[…] are the class they name first
                return self.classes(module, value)
            case _:
                return frozenset()

    def resolved(self, module: str, name: str) -> frozenset[str]:
        """Return what a name of a module stands for, through imports and aliases."""
        found: set[str] = set()
        seen: set[str] = set()
        waiting = [f"{module}.{name}"]
        while waiting:
            dotted = waiting.pop()
            if dotted in seen:
                continue
            seen.add(dotted)
            owner, _, last = dotted.rpartition(".")
            targets = self.names.get(owner, {}).get(last)
            if targets is None:
                found.add(dotted)
            else:
                found |= targets & {dotted}
                waiting += targets - {dotted}
        return frozenset(found)


def findings(sources: Iterable[Source]) -> Iterator[Finding]:
    """Yield every place in a product that asks."""
    sources = tuple(sources)
    definitions = definitions_of(sources)
    for source in sources:
        for node in source.nodes:
            if isinstance(node, _ASKING):
                yield from _in_node(definitions, source, node)


def definitions_of(sources: Sequence[Source]) -> Definitions:
    """Return the classes and ids that a product defines."""
    definitions = Definitions({source.module: _names(source) for source in sources})
    bases: dict[str, frozenset[str]] = {}
    bodies: dict[str, ast.ClassDef] = {}
    folders: dict[str, str] = {}
    for source in sources:
        module = source.module
        for node in source.nodes:
            if isinstance(node, ast.ClassDef):
                dotted = f"{module}.{node.name}"
                bases[dotted] = frozenset().union(*(definitions.classes(module, each) for each in node.bases))
                bodies[dotted], folders[dotted] = node, source.file.rpartition("/")[0] + "/"
        for statement in source.tree.body:
            definitions.ids |= _listed_ids(statement) | (_own_id(statement) if _is_info(source.file) else set())
        if module == _PLAIN_IN_OPTIONS:
            definitions.patterns |= {f"{module}.{each}" for each in _patterns(source.tree)}
    models = _descendants({"pydantic.BaseModel"}, bases)
    in_options = {each for each in models if folders[each] == _OPTIONS}
    definitions.options = {each: folders[each] for each in _descendants(in_options, bases) | in_options}
    for dotted in _of_parameters(definitions.options, bases):
        definitions.members |= _members(bodies[dotted])
    described = (each for each in models if folders[each] == _DESCRIPTIONS)
    definitions.descriptions = {each: _DESCRIPTIONS for each in described if _names_a_task(bodies[each])}
    return definitions


def _in_node(definitions: Definitions, source: Source, node: ast.AST) -> Iterator[Finding]:
    file, module = source.file, source.module
    for expression in _asked(node):
        classes = definitions.classes(module, expression)
        for rule, rooms in ((_ASKED, definitions.options), (_TASK, definitions.descriptions)):
            if any(not file.startswith(rooms[each]) for each in classes if each in rooms):
                yield Finding(rule, file, _line(node), ast.unparse(node))
                break
    if _asked_attribute(node) in definitions.members and not file.startswith(_OPTIONS):
        yield Finding(_ASKED, file, _line(node), ast.unparse(node))
    compared = {place: broken for place, value in _compared(node) if (broken := _rule_of(definitions, source, value))}
    for place, broken in compared.items():
        yield Finding(broken, file, _line(place), ast.unparse(place))


def _rule_of(definitions: Definitions, source: Source, value: str | ast.expr) -> str | None:
    """Return the rule that a comparison with a text, or with a constant, breaks."""
    file = source.file
    is_own = file.startswith(_OPTIONS) or (file.startswith(_METHODS) and file.count("/") > _METHODS.count("/"))
    if not isinstance(value, str):
        is_pattern = bool(definitions.classes(source.module, value) & definitions.patterns)
        return _COMPARED if is_pattern and not is_own else None
    if value in _TASKS:
        return None if file.startswith(_DESCRIPTIONS) else _TASK
    return _COMPARED if value in definitions.ids - _WORDS_OF_OTHER_LISTS and not is_own else None


def _asked(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the classes, as expressions, that a node asks an object for."""
    match node:
        case ast.Call(func=ast.Name("isinstance" | "issubclass"), args=[_, classes]):
            yield classes
        case ast.MatchClass(cls=named):
            yield named
        case ast.Compare(left=left, comparators=others):
            sides = (left, *others)
            if any(_is_class_of(side) for side in sides):
                yield from (side for side in sides if not _is_class_of(side))


def _is_class_of(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name("type"), args=[_]) | ast.Attribute(attr="__class__"):
            return True
        case _:
            return False


def _asked_attribute(node: ast.AST) -> str | None:
    """Return the attribute that a node asks an object for without knowing whether it has it."""
    match node:
        case ast.Call(func=ast.Name("hasattr"), args=[_, ast.Constant(str(name))]):
            return name
        case ast.Call(func=ast.Name("getattr"), args=[_, ast.Constant(str(name)), _]):
            return name
        case ast.Compare(
            left=ast.Constant(str(name)), ops=[ast.In() | ast.NotIn()], comparators=[ast.Attribute(attr="model_fields")]
        ):
            return name
        case _:
            return None


def _compared(node: ast.AST) -> Iterator[tuple[ast.AST, str | ast.expr]]:
    """Yield the literal texts, and the dotted constants, that a node compares with, each with its place."""
    match node:
        case ast.Compare(left=left, ops=operators, comparators=others):
            sides = (left, *others)
            if not any(isinstance(each, ast.Is | ast.IsNot) for each in operators):
                yield from ((node, value) for value in _values(sides) if not _is_of_another_list(sides, value))
        case ast.Match(subject=subject, cases=cases):
            for pattern in (each for case in cases for each in ast.walk(case.pattern)):
                if isinstance(pattern, ast.MatchValue):
                    values = _values((pattern.value,))
                    yield from ((pattern, value) for value in values if not _is_of_another_list((subject,), value))


def _is_of_another_list(sides: Iterable[ast.expr], value: str | ast.expr) -> bool:
    """Return whether a value is compared with one that is no id, though it is written as one."""
    named = {getattr(side, "attr", getattr(side, "id", None)) for side in sides}
    return value not in _TASKS and not _OTHER_LISTS.isdisjoint(named)


def _values(sides: Iterable[ast.expr]) -> Iterator[str | ast.expr]:
    for side in sides:
        match side:
            case ast.Constant(str(text)):
                yield text
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                yield from _values(parts)
            case ast.Attribute(value=ast.Name() as owner, attr="text" | "family"):
                yield owner
            case ast.Name():
                yield side


def _names(source: Source) -> dict[str, frozenset[str]]:
    """Return what the names of a module stand for, as dotted names: imports, and aliases of classes."""
    module = source.module
    package = module if source.file.endswith("/__init__.py") else module.rpartition(".")[0]
    names: dict[str, frozenset[str]] = {}
    for node in source.nodes:
        if isinstance(node, ast.Import):
            for each in node.names:
                names[each.asname or each.name.partition(".")[0]] = frozenset({each.name})
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            owner = ".".join(part for part in (above, node.module) if part)
            for each in node.names:
                names[each.asname or each.name] = frozenset({f"{owner}.{each.name}"})
    for statement in source.tree.body:
        target, value = _assigned(statement)
        if target is not None and value is not None and (parts := _named(value)):
            names[target] = frozenset(f"{module}.{part}" for part in parts if part != target)
    return names


def _assigned(node: ast.stmt) -> tuple[str | None, ast.expr | None]:
    match node:
        case ast.Assign(targets=[ast.Name(target)], value=value) | ast.AnnAssign(target=ast.Name(target), value=value):
            return target, value
        case _:
            return None, None


def _named(value: ast.expr) -> list[str]:
    """Return the names in what may be an alias: a name, a union, a tuple; none in any other expression."""
    match value:
        case ast.Name(name):
            return [name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_named(left), *_named(right)]
        case ast.Tuple(elts=parts) if parts and all(isinstance(part, ast.Name) for part in parts):
            return [name for part in parts for name in _named(part)]
        case _:
            return []


def _listed_ids(node: ast.stmt) -> set[str]:
    """Return the ids of a closed list of them, as `PatternFamily = Literal[…]`."""
    target, value = _assigned(node)
    if target not in _ID_LISTS or not isinstance(value, ast.Subscript):
        return set()
    return {each.value for each in ast.walk(value) if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def _is_info(file: str) -> bool:
    return file.startswith(_METHODS) and file.endswith("/info.py")


def _own_id(node: ast.stmt) -> set[str]:
    """Return the id that a method's folder gives itself, as `INFO = MethodInfo(id=…)`."""
    _, value = _assigned(node)
    keywords = value.keywords if isinstance(value, ast.Call) else ()
    ids = (each.value for each in keywords if each.arg == "id")
    return {each.value for each in ids if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def _patterns(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(name)], value=ast.Call(func=ast.Name("Pattern"))):
                yield name


def _names_a_task(node: ast.ClassDef) -> bool:
    return any(isinstance(each, ast.Constant) and each.value in _TASKS for each in ast.walk(node))


def _members(node: ast.ClassDef) -> set[str]:
    """Return the attributes that a class declares."""
    names = set()
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            names.add(each.target.id)
        elif isinstance(each, ast.FunctionDef):
            names.add(each.name)
    return names


def _of_parameters(options: Iterable[str], bases: Mapping[str, frozenset[str]]) -> set[str]:
    """Return the option classes whose attributes methods' parameters have: those classes, and their mix-ins."""
    found = _descendants({_PARAMETERS}, bases) | {_PARAMETERS}
    while more := {base for each in found for base in bases[each]} & set(options) - found:
        found |= more
    return found


def _descendants(roots: set[str], bases: Mapping[str, frozenset[str]]) -> set[str]:
    """Return the classes that have one of the roots above them."""
    found: set[str] = set()
    while more := {each for each, own in bases.items() if own & (roots | found)} - found:
        found |= more
    return found


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 1))
