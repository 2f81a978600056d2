"""Mutants of every place where the product names a device, one at a time without it.

A mutant is one change of one call in `core`: `.to(…)` or `device=…` without its device, `.cpu()` taken away, a
generator left out, a call of the accelerator's interface about the CPU instead, or left out. Tests of `tests/simulator`
that reach it have to notice. They are known by one run of all of them under coverage, which is kept.
"""

import ast
import copy
import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import coverage
import pytest
from cosmic_ray.ast import get_ast

from bench.cells import Cell, CellFailed, Runner
from bench.mutants.mutant import ROOT, Mutant
from bench.mutants.running import BaselineFailed

_PACKAGES = ("core/engine", "core/methods", "core/pipeline")
_WITHOUT = ("core/engine/models/accelerator.py",)
"""The interface itself, of which the simulator has its own implementation."""
_DEVICES = ("device", "place")
"""Names that hold a device, whatever object they are attributes of."""
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
_CPU = ast.parse('__import__("torch").device("cpu")', mode="eval").body


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


def _calls(source: str) -> Iterator[tuple[ast.Call, str, ast.expr]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            for kind, instead in _changes(node):
                yield node, kind, instead


@dataclass(frozen=True)
class WithoutDevice:
    """Operator of cosmic-ray that changes the calls of a module which name a device."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "file_input":
            for call, _, _ in _calls(node.get_code()):
                yield (call.lineno, call.col_offset), (call.end_lineno, call.end_col_offset)

    def mutate(self, node: Any, index: int) -> Any:
        call, _, instead = list(_calls(node.get_code()))[index]
        assert call.end_lineno is not None
        lines = [line.encode() for line in node.get_code().splitlines(keepends=True)]
        head = b"".join(lines[: call.lineno - 1]) + lines[call.lineno - 1][: call.col_offset]
        tail = lines[call.end_lineno - 1][call.end_col_offset :] + b"".join(lines[call.end_lineno :])
        return get_ast((head + f"({ast.unparse(instead)})".encode() + tail).decode())


def find_mutants() -> dict[Mutant, ast.Call]:
    """Return every mutant of the product, without tests, with the call that it changes."""
    found = {}
    for file in (file for package in _PACKAGES for file in sorted((ROOT / package).rglob("*.py"))):
        name = file.relative_to(ROOT).as_posix()
        if name not in _WITHOUT:
            for number, (call, kind, _) in enumerate(_calls(file.read_text())):
                found[Mutant(f"{name}:{call.lineno} {kind} {number}", name, WithoutDevice(), number)] = call
    return found


class Reached:
    """Plugin of pytest, under coverage, that notes which test runs each line, and how long each test takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        measuring = coverage.Coverage.current()
        assert measuring is not None
        measuring.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration


def run_all(result: Path) -> int:
    """Run the tests; write for each line of the product that has a mutant the tests that run it, and their seconds."""
    measuring = coverage.Coverage(data_file=None, source=[str(ROOT / package) for package in _PACKAGES])
    reached = Reached()
    with measuring.collect():
        options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-m", "nightly or not nightly"]
        status = int(pytest.main([*options, *_FILES, "-k", _CHOICE], plugins=[reached]))
    lines = {
        file: measuring.get_data().contexts_by_lineno(str(ROOT / file)) for file in {m.file for m in find_mutants()}
    }
    result.write_text(json.dumps({"lines": lines, "seconds": reached.seconds}))
    return status


def reached_by(runner: Runner) -> dict[str, Any]:
    """Return what a run of all tests says, kept by the sources. Raises BaselineFailed where a test fails."""
    digest = hashlib.sha256()
    for folder in ("core", "tests/simulator", "tests/engine"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.read_bytes())

    def work() -> dict[str, Any]:
        with TemporaryDirectory() as place:
            result = Path(place) / "reached.json"
            command = [sys.executable, "-m", "bench.mutants.devices", str(result)]
            if subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode:
                raise CellFailed("the tests fail without any change: no mutant can be judged by them")
            return dict(json.loads(result.read_text()))

    cells = {None: Cell("the tests that reach each line", f"reached-{digest.hexdigest()[:20]}", work)}
    found = replace(runner, is_fresh=False).figures(cells, lambda said: f"{len(said['seconds'])} tests")
    if not found:
        raise BaselineFailed("it is not known which tests reach a mutant")
    return found[None]


def chosen(reached: dict[str, Any], file: str, call: ast.Call) -> tuple[str, ...]:
    """Return the tests to run for a call: the fastest of each test function that reaches it, then the others."""
    lines = reached["lines"].get(file, {})
    own = {test for line in range(call.lineno, (call.end_lineno or 0) + 1) for test in lines.get(str(line), ()) if test}
    seconds = reached["seconds"]
    fastest = sorted(own, key=lambda test: (seconds[test], test))
    first = {test.partition("[")[0]: test for test in reversed(fastest)}
    ordered = sorted(own, key=lambda test: (test not in first.values(), seconds[test], test))
    passed = accumulate(seconds[test] for test in ordered)
    return tuple(
        test
        for number, (test, until) in enumerate(zip(ordered, passed, strict=True))
        if number < _FEWEST_TESTS or until <= _MOST_TEST_SECONDS
    )


def with_tests(mutants: Sequence[Mutant], runner: Runner) -> list[Mutant]:
    """Return mutants with the tests to run on them; one that no test reaches is told of and left out."""
    calls, reached = find_mutants(), reached_by(runner)
    tried = [replace(each, tests=chosen(reached, each.file, calls[each])) for each in mutants]
    for each in tried:
        if not each.tests:
            print(f"not reached: {each.name}")
    return [each for each in tried if each.tests]


if __name__ == "__main__":
    sys.exit(run_all(Path(sys.argv[1])))
