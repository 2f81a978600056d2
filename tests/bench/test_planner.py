"""Pages of the bench that holds the planner's estimates against what came out."""

from bench.planner import CASES, Case, Outcome, jobs_page, rows_page
from secateur_wire.plans import PlanFigure


def figure(low: float, estimate: float, high: float) -> PlanFigure:
    return PlanFigure(estimate=estimate, low=low, high=high, source="measurements", count=1, basis="a row")


def test_outcomes_are_counted_where_they_were_estimated() -> None:
    case = Case("zeros 40 %", "sparsity", {"amount": 0.4})
    outcomes = [
        Outcome(case, figure(1.1, 1.2, 1.3), None, 100.0, 150.0, {"articles": 1.25, "handbook": 1.4}),
        Outcome(case, None, figure(1.0, 1.1, 1.2), None, 80.0, {"articles": 1.1}),
    ]
    page = jobs_page(outcomes, "the command")
    assert "- release: 1 of 2 outcomes (50%) lie within their bands." in page and "is 1.18 times its low end" in page
    assert "- jobs before: 1 of 1 outcomes (100%)" in page and "2 more outcomes are not estimated" in page
    assert "The seconds of a job ÷ their estimate: 1.50 to 1.50" in page and "not known" in page
    assert "1.20 (1.10 to 1.30)" in page


def test_at_least_twelve_jobs_that_no_row_is_of_and_some_on_artifacts() -> None:
    assert len(CASES) >= 12 and sum(case.after is not None for case in CASES) >= 2
    names = [case.name for case in CASES]
    assert all(case.after is None or names.index(case.after) < names.index(case.name) for case in CASES)
    assert "lie within their bands" in rows_page()
