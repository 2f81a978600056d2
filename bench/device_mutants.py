"""Every place where the product names a device, one at a time without it: `python -m bench.device_mutants`.

A mutant is one change of one call in `core`, found in the syntax tree: `.to(…)` or `device=…` without its device,
`.cpu()` taken away, a generator left out, a call of the accelerator's interface about the CPU instead, or left out. The
tests of `tests/simulator` that reach it have to notice it. A child forked from a process that has loaded the libraries
runs them on the product with the change, which is in its memory alone. What was found is kept in
`.cache/device-mutants.json`, by the change and the sources, and not run again. `--sample N --seed S` tries N of them,
`--only FILE:LINE` those of a line, and `--tests` runs tests of one's own choice on them and keeps nothing; the exit
status is 1 under 90 %.
"""

import argparse
import ast
import builtins
import copy
import hashlib
import importlib.abc
import importlib.machinery
import json
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / ".cache" / "device-mutants.json"
LEAST_CAUGHT = 0.9
_SECONDS = 300
"""Seconds of the processor after which a mutant counts as caught; the tests take a fraction of this on any machine."""
_PACKAGES = ("core/engine", "core/methods", "core/pipeline")
_WITHOUT = ("core/engine/models/accelerator.py",)
"""The interface itself, of which the simulator has its own implementation."""
_DEVICES = ("device", "place")
"""Names that hold a device, whatever object they are attributes of."""
_LIBRARIES = ("torch", "transformers", "accelerate", "peft")
_NOTE = "__note_device_call__"
_FAIL_BY_THEMSELVES = "the tests fail without any change: no mutant can be judged by them"
_FILES = [
    f"tests/simulator/test_{name}.py"
    for name in ("language_models", "classifiers", "memory", "stages", "transfers", "waits", "reload")
]
_CHOICE = (
    "not gpt2 and not every_family and not every_allocation and not two_hundred and not device_that_fails and "
    "(lenet-5 or not every_method_s_classifier)"
)
"""Choice of their tests: all but those that repeat a method on another family, or a fault at every allocation."""
_FEWEST_TESTS = 6
_MOST_TEST_SECONDS = 60
"""Tests that are run on a mutant, of those that reach it: so many, and more as long as all take no longer than that."""
_CALLERS = 2
"""Lines of the product on the way to a place, by which tests reach it differently."""
_Callers = tuple[tuple[str, int], ...]
_CPU = ast.parse('__import__("torch").device("cpu")', mode="eval").body


@dataclass(frozen=True)
class Mutant:
    """One change: `before` is the call's source, `after` what stands in its place."""

    file: str
    line: int
    kind: str
    before: str
    after: str
    number: int
    """Place of the call, and of the change in it, in the order in which the file's tree is walked."""

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line} {self.kind}"


def _is_device(node: ast.expr) -> bool:
    """Return True for an expression that is a device, by its name."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in _DEVICES or name.endswith("_device")
        case ast.BoolOp(values=values):
            return any(map(_is_device, values))
        case ast.Call(func=ast.Attribute(value=ast.Name("torch"), attr="device")):
            return True
    return False


def _changes(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield the kind of each change of a call, and what stands in its place."""
    named = {each.arg: each for each in call.keywords}
    match call.func:
        case ast.Attribute(attr="to", value=value):
            places = [each for each in call.args if _is_device(each)]
            if places or "device" in named:
                rest = copy.deepcopy(call)
                rest.args = [each for each in call.args if not _is_device(each)]
                rest.keywords = [each for each in call.keywords if each.arg != "device"]
                yield ".to", rest if rest.args or rest.keywords else value
                return
        case ast.Attribute(attr="cpu", value=value) if not call.args:
            yield ".cpu", value
        case ast.Attribute(value=ast.Call(func=ast.Name("backend_of")), attr="synchronise"):
            yield "accelerator", ast.Constant(None)
        case ast.Name("backend_of"):
            about_cpu = copy.deepcopy(call)
            about_cpu.args = [_CPU]
            yield "accelerator", about_cpu
    for name, kind in (("device", "device="), ("generator", "generator=")):
        if name in named and not _is_the_cpu(named[name].value):
            changed = copy.deepcopy(call)
            changed.keywords = [each for each in changed.keywords if each.arg != name]
            if name == "device" and not _of_torch(call.func):  # the product's own: it has to be given one
                changed.keywords.append(ast.keyword("device", _CPU))
            yield kind, changed


def _is_the_cpu(node: ast.expr) -> bool:
    """Return True for the CPU by its constant's name: what has the CPU instead is no other."""
    return isinstance(node, ast.Name) and node.id == "_CPU"


def _of_torch(function: ast.expr) -> bool:
    """Return True for a function of torch, or a method of a tensor that makes another."""
    match function:
        case ast.Attribute(value=ast.Name("torch")):
            return True
        case ast.Attribute(attr=name):
            return name.startswith("new_")
    return False


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for kind, instead in _changes(node):
                yield node, kind, instead


def find_mutants() -> list[Mutant]:
    """Return every mutant of the product."""
    found = []
    for package in _PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            if name not in _WITHOUT:
                for number, (call, kind, instead) in enumerate(_calls(ast.parse(file.read_text()))):
                    found.append(Mutant(name, call.lineno, kind, ast.unparse(call), ast.unparse(instead), number))
    return found


def mutated(mutant: Mutant) -> CodeType:
    """Return the code of a file with a change in it."""
    tree = ast.parse((ROOT / mutant.file).read_text())
    call, _, instead = list(_calls(tree))[mutant.number]

    class Exchange(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            return ast.copy_location(instead, node) if node is call else self.generic_visit(node)

    return compile(ast.fix_missing_locations(Exchange().visit(tree)), ROOT / mutant.file, "exec")


def watched(file: str) -> CodeType:
    """Return the code of a file in which each call that has a mutant notes that a test reaches it."""
    tree = ast.parse((ROOT / file).read_text())
    numbers: dict[int, list[int]] = {}
    for number, (call, _, _) in enumerate(_calls(tree)):
        numbers.setdefault(id(call), []).append(number)

    class Watch(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            own = numbers.get(id(node))
            inner = self.generic_visit(node)
            if own is None:
                return inner
            assert isinstance(inner, ast.Call)
            note = ast.Call(ast.Name(_NOTE, ast.Load()), [ast.Constant(f"{file} {each}") for each in own], [])
            both = ast.Tuple([note, inner], ast.Load())
            return ast.copy_location(ast.Subscript(both, ast.Constant(1), ast.Load()), node)

    return compile(ast.fix_missing_locations(Watch().visit(tree)), ROOT / file, "exec")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Importer of some of the product's modules with code of ours, by the name of each."""

    def __init__(self, code: Mapping[str, CodeType]) -> None:
        self._code = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): code[file] for file in code}

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        code = self._code.get(fullname)
        if code is None:
            return None
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=code.co_filename)
        spec.has_location = True
        return spec

    def get_code(self, fullname: str) -> CodeType:
        return self._code[fullname]

    def get_source(self, fullname: str) -> None:
        return None


def reached() -> dict[str, list[str]]:
    """Return the tests to run for each call with a mutant, by file and number: the fastest that reach it.

    First are those that reach it from elsewhere in the product than any before. Raises RuntimeError where one of all
    tests fails.
    """
    found: dict[str, dict[str, set[_Callers]]] = defaultdict(lambda: defaultdict(set))
    clock = _Clock()

    def note(*places: str) -> None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        callers = _callers(sys._getframe(1))
        for place in places if test else ():
            found[place][test].add(callers)

    with TemporaryDirectory() as folder:
        file = Path(folder) / "reached.json"

        def save() -> None:
            file.write_text(json.dumps({place: _chosen(tests, clock.seconds) for place, tests in found.items()}))

        setattr(builtins, _NOTE, note)
        code = {each: watched(each) for each in {mutant.file for mutant in find_mutants()}}
        failed, _ = _run(code, [*_FILES, "-k", _CHOICE], plugins=[clock], after=save, seconds=0)
        if failed:
            raise RuntimeError(_FAIL_BY_THEMSELVES)
        answer: dict[str, list[str]] = json.loads(file.read_text())
        return answer


def _callers(frame: FrameType) -> _Callers:
    """Return the lines of the product that called a function, the nearest first."""
    lines: list[tuple[str, int]] = []
    own, outer = frame.f_code, frame.f_back
    while outer is not None and len(lines) < _CALLERS:
        if outer.f_code is not own and outer.f_code.co_filename.startswith(str(ROOT / "core")):
            lines.append((outer.f_code.co_filename, outer.f_lineno))
        outer = outer.f_back
    return tuple(lines)


def _chosen(tests: Mapping[str, set[_Callers]], seconds: Mapping[str, float]) -> list[str]:
    """Return the tests to run of those that reach a place, by their callers of it."""
    fastest = sorted(tests, key=seconds.__getitem__)
    first, seen = [], set[_Callers]()
    for test in fastest:
        if not tests[test] <= seen:
            first.append(test)
            seen |= tests[test]
    ordered = [*first, *(each for each in fastest if each not in first)]
    taken = accumulate(seconds[each] for each in ordered)
    return [
        each
        for number, (each, passed) in enumerate(zip(ordered, taken, strict=True))
        if number < _FEWEST_TESTS or passed <= _MOST_TEST_SECONDS
    ]


class _Clock:
    """Seconds of each test that was run: a plugin of pytest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration


def _run(
    code: Mapping[str, CodeType],
    tests: Sequence[str],
    *,
    plugins: Sequence[object] = (),
    after: Callable[[], None] | None = None,
    seconds: int = _SECONDS,
) -> tuple[bool, float]:
    """Run tests on modules with this code, in a child; return True where one failed, and the seconds.

    They have failed where they take longer than `seconds`; 0 is without end.
    """
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            signal.setitimer(signal.ITIMER_PROF, seconds)
            sys.meta_path.insert(0, _Finder(code))
            options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-m", "nightly or not nightly"]
            status = int(pytest.main([*options, *tests], plugins=[*plugins]))
            if after is not None:
                after()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    return ended != 0, time.monotonic() - start


def _sources() -> str:
    """Return a hash of all that a result depends on beside the change."""
    digest = hashlib.sha256()
    for folder in ("core", "tests/simulator", "tests/engine"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _try(mutants: Sequence[Mutant], tests: Sequence[str]) -> int:
    """Run tests on each mutant and print what it is; return 1 where any survives.

    Raises RuntimeError where one of the tests fails without any change.
    """
    if _run({}, tests)[0]:
        raise RuntimeError(_FAIL_BY_THEMSELVES)
    survived = 0
    for each in mutants:
        is_caught, seconds = _run({each.file: mutated(each)}, tests)
        survived += not is_caught
        print(f"{'caught' if is_caught else 'SURVIVED'}  {each.name}: {each.before}  {seconds:.0f} s", flush=True)
    return int(survived > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.device_mutants", description=__doc__)
    parser.add_argument("--sample", type=int, metavar="N", help="try so many, drawn by the seed; all where not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="FILE:LINE", help="try those of this line; may be repeated")
    parser.add_argument("--tests", nargs="+", metavar="TEST", help="run these, whether they reach a mutant or not")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no mutant after so many")
    parser.add_argument("--list", action="store_true", help="print the mutants and run none")
    options = parser.parse_args(arguments)
    every = find_mutants()
    if options.only:
        places = [each.name.partition(" ")[0] for each in every]
        if unknown := set(options.only) - set(places):
            parser.error(f"no mutant at {', '.join(sorted(unknown))}: --list shows those there are")
        every = [each for each, place in zip(every, places, strict=True) if place in options.only]
    mutants = random.Random(options.seed).sample(every, min(options.sample or len(every), len(every)))
    if options.list:
        for each in mutants:
            print(f"{each.name}: {each.before}  ->  {each.after}")
        return 0
    for library in _LIBRARIES:
        __import__(library)
    if options.tests:
        return _try(mutants, options.tests)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    sources, end = _sources(), time.monotonic() + 60 * options.minutes
    tests = known.setdefault(f"{sources} reached", None) or reached()
    known[f"{sources} reached"] = tests
    RESULTS.write_text(json.dumps(known, indent=0))
    for each in mutants:
        key = f"{sources} {each.name} {each.before} {each.after}"
        if key not in known and time.monotonic() < end:
            own, seconds = tests.get(f"{each.file} {each.number}", []), 0.0
            known[key] = False
            if own:
                known[key], seconds = _run({each.file: mutated(each)}, own)
            RESULTS.write_text(json.dumps(known, indent=0))
            state = "caught" if known[key] else "SURVIVED" if own else "not reached"
            print(f"{state}  {each.name}  {seconds:.0f} s", flush=True)
    results = {each: known.get(f"{sources} {each.name} {each.before} {each.after}") for each in mutants}
    tried = {each: caught for each, caught in results.items() if caught is not None}
    for each, caught in tried.items():
        if not caught:
            is_reached = f"{each.file} {each.number}" in tests
            print(f"{'survived' if is_reached else 'not reached'}: {each.name}: {each.before}  ->  {each.after}")
    share = sum(tried.values()) / max(1, len(tried))
    print(f"{sum(tried.values())} of {len(tried)} caught, {100 * share:.1f} %, of {len(every)} there are")
    return int(share < LEAST_CAUGHT)


if __name__ == "__main__":
    sys.exit(main())
