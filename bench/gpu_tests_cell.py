"""The tests that need a GPU, run as a cell: how many passed, failed and were skipped."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


class Outcomes:
    """Plugin of pytest that counts tests by how they ended, and keeps the names of those that failed."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            if report.failed:
                self.failed.append(report.nodeid)


def run_tests(spec: dict[str, Any]) -> dict[str, Any]:
    """Run the tests under the spec's `folders` that are marked for a GPU."""
    outcomes = Outcomes()
    folders = [str(ROOT / folder) for folder in spec["folders"]]
    options = ["--rootdir", str(ROOT), "-q", "-m", "gpu", "-p", "no:cacheprovider", *folders]
    pytest.main(options, plugins=[outcomes])
    return {"counts": dict(outcomes.counts), "failed": outcomes.failed}
