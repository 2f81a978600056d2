"""Mutants at work: each is applied to a copy of the tree, where the tests that should notice it run."""

import compileall
import os
import queue
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from bench.cells import recall, remember
from bench.mutants.mutant import Mutant, NotApplicable
from worker.processes import run

State = Literal["killed", "survived", "error"]

_PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", "--timeout=120", "-m", "")
_PASSED, _FAILED = 0, 1
"""Exit codes of pytest; all others mean that the tests themselves could not be run."""
_SHARED = ".cache"
"""Sample models that tests fetch once."""


@dataclass(frozen=True)
class Result:
    """The end of one mutant; `detail` is the test that noticed it, or the end of what pytest wrote."""

    mutant: Mutant
    state: State
    seconds: float
    detail: str


class BaselineFailed(Exception):
    """Tests that fail without any mutant prove nothing."""


def sources(root: Path) -> list[str]:
    """Return the files of a checkout, those not committed yet among them, by path."""
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    found = subprocess.run(listing, cwd=root, check=True, capture_output=True, text=True).stdout
    return [path for path in found.split("\0") if path and (root / path).is_file()]


def recalled(mutant: Mutant, root: Path) -> Result | None:
    """Return what was found before with the same change, file and tests."""
    figures = recall(mutant.key(root))
    return None if figures is None else Result(mutant, **figures)


def try_mutants(
    mutants: Sequence[Mutant], root: Path, files: Iterable[str], *, at_once: int, say: Callable[[str], None]
) -> Iterator[Result]:
    """Yield results as they come, `at_once` mutants at a time; kept for `recalled` where one was killed or survived.

    Raises BaselineFailed where the tests do not all pass on the tree as it is.
    """
    with TemporaryDirectory(prefix="secateur-mutants-") as place:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        kept = list(files)
        for number in range(min(at_once, len(mutants))):
            copies.put(copy_tree(root, kept, Path(place) / str(number)))
        with ThreadPoolExecutor(at_once) as pool:
            _check_baseline(mutants, copies, pool, say)
            futures = [pool.submit(_try_in_any, mutant, copies) for mutant in mutants]
            try:
                for future in as_completed(futures):
                    result = future.result()
                    if result.state != "error":
                        kept_figures = {"state": result.state, "seconds": result.seconds, "detail": result.detail}
                        remember(result.mutant.key(root), kept_figures)
                    yield result
            finally:
                pool.shutdown(cancel_futures=True)


def copy_tree(root: Path, files: Iterable[str], target: Path) -> Path:
    """Copy files of a checkout, compile them, and return the target; what tests fetched once is shared."""
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / file, target / file)
    compileall.compile_dir(target, quiet=2)
    if (root / _SHARED).is_dir():
        (target / _SHARED).symlink_to((root / _SHARED).resolve())
    return target


def _check_baseline(
    mutants: Iterable[Mutant],
    copies: "queue.SimpleQueue[Path]",
    pool: ThreadPoolExecutor,
    say: Callable[[str], None],
) -> None:
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    say(f"{len(tests)} tests without a mutant")
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    parts = [files[number :: copies.qsize()] for number in range(copies.qsize())]

    def check(part: Sequence[str]) -> tuple[int, str]:
        with _taken(copies) as copy:
            return _run_tests(copy, [test for test in tests if test.partition("::")[0] in part])

    for code, output in pool.map(check, filter(None, parts)):
        if code != _PASSED:
            raise BaselineFailed(f"the tests do not all pass without a mutant:\n{output[-3000:]}")


def _try_in_any(mutant: Mutant, copies: "queue.SimpleQueue[Path]") -> Result:
    begun = time.monotonic()
    with _taken(copies) as copy:
        try:
            with applied(mutant, copy):
                code, output = _run_tests(copy, mutant.tests)
        except NotApplicable as error:
            return Result(mutant, "error", 0.0, str(error))
    seconds = round(time.monotonic() - begun, 1)
    if code == _PASSED:
        return Result(mutant, "survived", seconds, mutant.survives or "every test passed: " + ", ".join(mutant.tests))
    failed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if code == _FAILED and failed:
        return Result(mutant, "killed", seconds, failed[0].partition(" ")[2].partition(" - ")[0])
    return Result(mutant, "error", seconds, f"{mutant.name}: pytest ended with {code}:\n{output[-2000:]}")


@contextmanager
def _taken(copies: "queue.SimpleQueue[Path]") -> Iterator[Path]:
    copy = copies.get()
    try:
        yield copy
    finally:
        copies.put(copy)


@contextmanager
def applied(mutant: Mutant, copy: Path) -> Iterator[None]:
    """Change the file, and put it back with its own time: its compiled form is good again."""
    file = copy / mutant.file
    source, times = file.read_text("utf-8"), file.stat()
    file.write_text(mutant.applied(source), "utf-8")
    try:
        yield
    finally:
        file.write_text(source, "utf-8")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _run_tests(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    own = {
        "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'client/src'}",
        "PYTHONDONTWRITEBYTECODE": "1",  # nothing compiled of a mutant may outlive it
        "OMP_NUM_THREADS": "1",
    }
    done = run([*_PYTEST, *tests], name="pytest", folder=copy, environment=os.environ | own)
    return done.returncode, done.stdout
