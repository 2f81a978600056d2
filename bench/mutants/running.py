"""Mutants at work: each is applied to a copy of the tree, where the tests that should notice it run."""

import compileall
import os
import queue
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cosmic_ray.mutating import use_mutation
from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import TestOutcome

from bench.cells import Cell, CellFailed, Runner, recalled
from bench.mutants.mutant import Mutant

_PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", "--timeout=120")
_MOST_SECONDS = 900
"""Seconds after which a mutant counts as killed."""
_SHARED = ".cache"
"""Sample models that tests fetch once."""


class BaselineFailed(Exception):
    """Tests that fail without any mutant prove nothing."""


def sources(root: Path) -> list[str]:
    """Return the files of a checkout, those not committed yet among them, by path."""
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    found = subprocess.run(listing, cwd=root, check=True, capture_output=True, text=True).stdout
    return [path for path in found.split("\0") if path and (root / path).is_file()]


def copy_tree(root: Path, files: Iterable[str], target: Path) -> Path:
    """Copy files of a checkout, compile them, and return the target; what tests fetched once is shared."""
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / file, target / file)
    compileall.compile_dir(target, quiet=2)
    if (root / _SHARED).is_dir():
        (target / _SHARED).symlink_to((root / _SHARED).resolve())
    return target


@contextmanager
def applied(mutant: Mutant, copy: Path) -> Iterator[None]:
    """Change a copy's file, and put it back. Raises NotApplicable."""
    mutant.applied((copy / mutant.file).read_text("utf-8"))
    with use_mutation(copy / mutant.file, mutant.operator, mutant.occurrence):
        yield


def try_mutants(
    mutants: Sequence[Mutant], root: Path, files: Iterable[str], runner: Runner, *, at_once: int = 1
) -> dict[Mutant, dict[str, Any]]:
    """Return what became of mutants, of now or before: `killed`, and `detail`, the test that noticed or the reason.

    Raises BaselineFailed where the tests do not all pass on the tree as it is, and NotApplicable.
    """
    copies: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def work(mutant: Mutant) -> dict[str, Any]:
        copy, begun = copies.get(), time.monotonic()
        try:
            with applied(mutant, copy):
                is_killed, output = _run_tests(copy, mutant.tests)
        finally:
            copies.put(copy)
        failed = [line.split(" - ")[0] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        why = failed[0].partition(" ")[2] if failed else output[-300:] if is_killed else mutant.survives
        return {"killed": is_killed, "detail": why, "seconds": round(time.monotonic() - begun, 1)}

    def cell(mutant: Mutant) -> Cell:
        return Cell(mutant.name, mutant.key(root), lambda: work(mutant))

    cells = {mutant: cell(mutant) for mutant in mutants}
    with TemporaryDirectory(prefix="secateur-mutants-") as place:
        missing = [each for each in mutants if runner.is_fresh or each not in recalled(cells)]
        if missing and runner.runs:
            for number in range(at_once):
                copies.put(copy_tree(root, files := list(files), Path(place) / str(number)))
        results = runner.figures(cells, lambda said: f"{_word(said)}, {said['seconds']:.0f} s", at_once=at_once)
        noticed = {results[each]["detail"] for each in missing if each in results and results[each]["killed"]}
        if tests := sorted(test for test in noticed if test.startswith("tests/")):
            has_failed, output = _run_tests(Path(place) / "0", tests)
            if has_failed:
                raise BaselineFailed(f"what noticed a mutant does not pass without one:\n{output[-3000:]}")
    return results


def report(results: dict[Mutant, dict[str, Any]], count: int, least: float) -> int:
    """Print what survived and the score; return 1 where fewer than that share were killed, or not all were tried."""
    for mutant, said in results.items():
        if not said["killed"]:
            print(f"survived: {mutant.name}: {said['detail'] or 'every test passed: ' + ', '.join(mutant.tests)}")
    killed = sum(said["killed"] for said in results.values())
    share = killed / max(1, len(results))
    print(f"{killed} of {len(results)} killed, {100 * share:.1f} %; at least {100 * least:g} % must be; {count} in all")
    return int(share < least or len(results) < count)


def _word(said: dict[str, Any]) -> str:
    return "killed" if said["killed"] else "survived"


def _run_tests(copy: Path, tests: Sequence[str]) -> tuple[bool, str]:
    own = [f"PYTHONPATH={copy}{os.pathsep}{copy / 'client/src'}", "OMP_NUM_THREADS=1"]
    outcome, output = run_tests(shlex.join(["env", "-C", str(copy), *own, *_PYTEST, *tests]), _MOST_SECONDS)
    if outcome is TestOutcome.INCOMPETENT:
        raise CellFailed(output)
    return outcome is TestOutcome.KILLED, output
