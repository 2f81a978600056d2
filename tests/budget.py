"""Plugin that prints, at the end of every run, how long each folder of tests took against its budget in `budget.toml`.

Times are seconds of tests with their fixtures, summed over the processes of the run. Of a folder over its budget, and
of every folder with `--slowest`, the ten slowest tests are listed. It reports and never fails a run.
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

FILE = Path(__file__).with_name("budget.toml")
SLOWEST = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slowest", action="store_true", help=f"list each folder's {SLOWEST} slowest tests")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # what tests of the other processes took is reported to this one
        config.pluginmanager.register(Budget(read_budget(FILE), config.getoption("--slowest")))


def read_budget(file: Path) -> dict[str, float]:
    """Return the seconds each folder may take."""
    budget: dict[str, float] = tomllib.loads(file.read_text())["seconds"]
    return budget


class Budget:
    """Seconds that tests took, and the table of them."""

    def __init__(self, seconds: Mapping[str, float], lists_slowest: bool) -> None:
        self._seconds = seconds
        self._lists_slowest = lists_slowest
        self._took: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._took[report.nodeid] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._took:
            terminalreporter.section("seconds by folder")
            for line in self.lines():
                terminalreporter.write_line(line)

    def lines(self) -> Iterator[str]:
        folders: dict[str, dict[str, float]] = defaultdict(dict)
        for test, took in self._took.items():
            folders[_folder(test)][test] = took
        for folder, tests in sorted(folders.items(), key=lambda each: -sum(each[1].values())):
            total, allowed = sum(tests.values()), self._seconds.get(folder)
            is_over = allowed is None or total > allowed
            limit = f"no budget in {FILE.name}" if allowed is None else f"of {allowed:g}{'  OVER' if is_over else ''}"
            yield f"{total:8.1f}  {folder}  {limit}"
            if is_over or self._lists_slowest:
                for test in sorted(tests, key=lambda each: -tests[each])[:SLOWEST]:
                    yield f"{tests[test]:14.1f}  {test}"
        yield f"{sum(self._took.values()):8.1f}  in all"


def _folder(test: str) -> str:
    return str(PurePosixPath(test.partition("::")[0]).parent)
