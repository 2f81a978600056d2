"""The table at the end of a run, and that every folder has a budget."""

from pathlib import Path

import pytest

from tests.budget import FILE, SLOWEST, Budget, read_budget

TESTS = Path(__file__).parent


def report(test: str, seconds: float) -> pytest.TestReport:
    return pytest.TestReport(test, ("", 0, ""), {}, "passed", None, "call", duration=seconds)


def lines(budget: dict[str, float], lists_slowest: bool = False) -> list[str]:
    table = Budget(budget, lists_slowest)
    for _ in range(2):  # setup and call, or two processes
        for number in range(SLOWEST + 2):
            table.pytest_runtest_logreport(report(f"tests/api/test_a.py::test_{number}", number))
        table.pytest_runtest_logreport(report("tests/jobs/test_b.py::test_b[x/y::z]", 1.25))
    return list(table.lines())


def test_times_are_summed_by_folder_beside_their_budget() -> None:
    assert lines({"tests/api": 200, "tests/jobs": 3}) == [
        "   132.0  tests/api  of 200",
        "     2.5  tests/jobs  of 3",
        "   134.5  in all",
    ]


def test_a_folder_over_its_budget_or_without_one_lists_its_slowest_tests() -> None:
    found = lines({"tests/api": 100})
    assert found[0] == "   132.0  tests/api  of 100  OVER"
    assert found[1] == "          22.0  tests/api/test_a.py::test_11" and len(found) == 1 + SLOWEST + 2 + 1
    assert found[-3:-1] == [
        "     2.5  tests/jobs  no budget in budget.toml",
        "           2.5  tests/jobs/test_b.py::test_b[x/y::z]",
    ]


def test_every_folder_lists_its_slowest_where_that_is_asked_for() -> None:
    assert len(lines({"tests/api": 200, "tests/jobs": 3}, lists_slowest=True)) == 1 + SLOWEST + 1 + 1 + 1


def test_every_folder_of_tests_has_a_budget_and_all_together_fit_into_ten_minutes_of_four_processes() -> None:
    budget = read_budget(FILE)
    folders = {file.parent.relative_to(TESTS.parent).as_posix() for file in TESTS.rglob("test_*.py")}
    assert folders <= set(budget) and sum(budget.values()) <= 4 * 600
