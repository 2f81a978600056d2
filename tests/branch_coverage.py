"""Branches of the product that tests run, in all processes that they start: `make coverage`.

`python -m tests.branch_coverage [--against FILE] [-- PYTEST OPTION…]` runs tests, prints a table by package, and keeps
the counts in `.cache/coverage/REVISION.json`, which a later run is compared with.

While it runs, a `.pth` file in the virtual environment has every interpreter of it measure itself: one that was forked,
too, and one whose environment is an allow-list, as a runner's. What is ended by SIGTERM or leaves by `os._exit` keeps
its counts; what is killed by SIGKILL loses those since it last forked, and those of the last second where it is always
ended so.
"""

import argparse
import atexit
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import coverage

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache" / "coverage"
DATA = FOLDER / "data"
SOURCES = ("api", "core", "worker", "client/src/secateur", "client/src/secateur_wire")
KILLED = {
    "worker.fetcher",
    *(f"core.engine.exporters.{each}" for each in ("gguf.llama_cpp", "onnx.runtime", "openvino.runtime")),
}
"""Modules whose processes are killed when nobody needs them any more."""
QUIET = (
    "already-imported",
    "couldnt-parse",
    "module-not-imported",
    "module-not-measured",
    "module-not-python",
    "no-data-collected",
    "trace-changed",
)
"""Warnings of a process that has run nothing of the product, or ends in the middle: they would be in its output."""

_START = (
    "import importlib.util as u; s = u.spec_from_file_location('branch_coverage', {file!r}); "
    "m = u.module_from_spec(s); s.loader.exec_module(m); m.Measured().start()\n"
)
"""One line, as a `.pth` file takes it: what each interpreter runs first."""

Counts = dict[str, list[int]]
"""Counts of each package: branches that were run and all there are, then the same of lines."""


class Measured:
    """Measurement of this process from `start` to its end, and of each that it forks."""

    def __init__(self) -> None:
        self._coverage: coverage.Coverage | None = None
        self._exit = os._exit

    def start(self) -> None:
        if os._exit.__name__ == self._leave.__name__:  # some interpreters read `.pth` files twice
            return
        self._begin()
        if KILLED.intersection(sys.orig_argv):
            threading.Thread(target=self._keep_on, name="branch coverage", daemon=True).start()
        atexit.register(self._save)
        os.register_at_fork(before=self._keep, after_in_child=self._begin)
        os._exit = self._leave

    def _begin(self) -> None:
        if self._coverage is not None:
            self._coverage.stop()
        self._coverage = _coverage(data_suffix=True)
        self._coverage.start()

    def _keep(self) -> None:
        """Write down what was measured so far: what others are forked from is killed when nobody needs it any more."""
        with suppress(Exception):
            if self._coverage is not None:
                self._coverage.save()

    def _keep_on(self) -> None:
        while True:
            time.sleep(1)
            self._keep()

    def _leave(self, code: int) -> NoReturn:
        self._save()
        self._exit(code)

    def _save(self) -> None:
        with suppress(Exception):  # its disk may be full, and whose account it runs by may not write here
            if self._coverage is not None:
                self._coverage.stop()
                self._coverage.save()


def _coverage(*, data_suffix: bool = False) -> coverage.Coverage:
    """Lines and branches; by sys.monitoring where Python can, else by the tracer in C. Greenlets are the engine's."""
    measured = coverage.Coverage(
        data_file=str(DATA),
        data_suffix=data_suffix,
        branch=True,
        source=[str(ROOT / source) for source in SOURCES],
        concurrency=["thread", "greenlet"],
        config_file=False,
        messages=False,
    )
    measured.set_option("run:sigterm", True)
    measured.set_option("run:disable_warnings", list(QUIET))
    return measured


@contextmanager
def measuring() -> Iterator[None]:
    """Have every interpreter of this environment that starts inside the context measure itself."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for stale in FOLDER.glob("data*"):
        stale.unlink()
    start = Path(sysconfig.get_path("purelib")) / "secateur_branch_coverage.pth"
    start.write_text(_START.format(file=str(Path(__file__).resolve())))
    try:
        yield
    finally:
        start.unlink()


def counts() -> Counts:
    """Return what the processes of a run have measured, together."""
    measured = _coverage()
    measured.combine()
    file = FOLDER / "report.json"
    measured.json_report(outfile=str(file), ignore_errors=True)
    found: Counts = defaultdict(lambda: [0, 0, 0, 0])
    for path, each in json.loads(file.read_text())["files"].items():
        summary = each["summary"]
        names = ("covered_branches", "num_branches", "covered_lines", "num_statements")
        row = found[_package((ROOT / path).relative_to(ROOT))]
        for place, name in enumerate(names):
            row[place] += summary[name]
    return dict(found)


def _package(file: Path) -> str:
    """Return the package of a file: two levels of it, as `core.engine`."""
    parts = file.parts[2:] if file.parts[0] == "client" else file.parts
    return ".".join(parts[: min(2, len(parts) - 1)])


def table(found: Mapping[str, Sequence[int]], against: Mapping[str, Sequence[int]] | None = None) -> Iterator[str]:
    """Yield the lines of the table, with the change in points where there are earlier counts."""
    yield f"{'branches':>17} {'':>7} {'lines':>17} {'':>7}  package"
    before = None if against is None else dict(_with_total(against))
    for name, row in _with_total(found):
        change = ""
        if before is not None:
            old = before.get(name)
            change = "  new" if old is None else f"  {_share(row[0], row[1]) - _share(old[0], old[1]):+.2f}"
        yield (
            f"{row[0]:>8}/{row[1]:<8} {_share(row[0], row[1]):6.2f}% {row[2]:>8}/{row[3]:<8} "
            f"{_share(row[2], row[3]):6.2f}%  {name}{change}"
        )


def _with_total(found: Mapping[str, Sequence[int]]) -> list[tuple[str, Sequence[int]]]:
    return [*sorted(found.items()), ("in all", [sum(column) for column in zip(*found.values(), strict=True)])]


def _share(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


def _revision() -> str:
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tests and print what they have run; return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.branch_coverage", description=__doc__)
    parser.add_argument("--against", type=Path, metavar="FILE", help="counts of another revision, to compare with")
    parser.add_argument("pytest", nargs="*", help="options and files, after --")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended early"))  # so that interpreters are as they were
    with measuring():
        code = subprocess.run([sys.executable, "-m", "pytest", *asked.pytest], cwd=ROOT, check=False).returncode
    found = counts()
    kept = FOLDER / f"{_revision()}.json"
    against = None if asked.against is None else json.loads(asked.against.read_text())
    kept.write_text(json.dumps(found, indent=1, sort_keys=True))
    print("\n".join([*table(found, against), f"kept in {kept.relative_to(ROOT)}"]))
    return code


if __name__ == "__main__":
    sys.exit(main())
