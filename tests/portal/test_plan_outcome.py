"""The outcome of a plan as its page shows it: each figure in words, and the axis along which an amount is chosen."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.portal.views.outcome import estimates_from, expected_quality, outcome_axis, outcome_figures
from secateur_wire.plans import Plan, PlanFigure

AMOUNTS = st.lists(st.floats(0.05, 0.95), min_size=2, max_size=12, unique_by=lambda amount: round(amount, 2))
RATIOS = st.tuples(st.floats(0.9, 20), st.floats(1, 3), st.floats(1, 3))


def figure(estimate: float, low: float | None = None, high: float | None = None, source: str = "jobs") -> PlanFigure:
    low, high = (estimate if each is None else each for each in (low, high))
    return PlanFigure(estimate=estimate, low=low, high=high, source=source, count=3, basis="3 jobs")


def plan(amount: float | None = 0.5, **others: Any) -> Plan:
    empty: dict[str, Any] = {"choices": [], "figures": {}, "points": [], "unknown": [], "warnings": []}
    return Plan.model_validate(
        {"model": "tiny", "goal": "speed", "amount": amount, "job": {}, "summary": ""} | empty | others
    )


def points(ratios: dict[float, PlanFigure | None], **others: PlanFigure) -> list[dict[str, Any]]:
    return [
        {"amount": amount, "figures": others | ({} if ratio is None else {"perplexity_ratio": ratio})}
        for amount, ratio in ratios.items()
    ]


@pytest.mark.parametrize(
    ("name", "known", "dense_bytes", "value", "band"),
    [
        ("perplexity_ratio", figure(1.25, 1.1, 1.4), None, "× 1.25", "1.10 to 1.40"),
        ("bits_per_byte_ratio", figure(1.05, 1.02, 1.1), None, "× 1.05", "1.02 to 1.10"),
        ("bytes_ratio", figure(0.5), None, "50 %", "50 %"),
        ("bytes_ratio", figure(0.5), 4_000_000, "2.0 MB", "50 % of 4.0 MB"),
        ("bytes_ratio", figure(0.5, 0.4, 0.6), 4_000_000, "2.0 MB", "40 to 60 % of 4.0 MB"),
        ("prefill_ratio", figure(0.5, 0.4, 0.8), None, "× 2.0", "1.2 to 2.5"),
        ("decode_ratio", figure(0.8), None, "× 1.2", "1.2"),
        ("seconds", figure(120, 60, 180), None, "2 min", "60 s to 3 min"),
    ],
)
def test_a_figure_has_its_value_and_the_range_it_should_lie_in(
    name: str, known: PlanFigure, dense_bytes: int | None, value: str, band: str
) -> None:
    (shown,) = outcome_figures(plan(figures={name: known}), dense_bytes)
    assert (shown.value, shown.range, shown.source) == (value, band, "your team's own jobs")


def test_what_is_not_known_is_said_and_no_figure_of_it_is_shown() -> None:
    nothing = plan(unknown=["decode_ratio: no job was timed."])
    assert outcome_figures(nothing, 1000) == [] and expected_quality(nothing) is None
    assert estimates_from(nothing) == "Estimates, not promises. Not known: writing speed: no job was timed."
    both = plan(figures={"seconds": figure(60), "bytes_ratio": figure(0.5, source="account")})
    assert estimates_from(both) == "Estimates, not promises, by your team's own jobs and what is counted or computed."


def corners(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, _, y in (each.partition(",") for each in text.split())]


@given(amounts=AMOUNTS, taken=st.floats(0.05, 0.95), ratios=st.lists(RATIOS, min_size=12, max_size=12))
def test_the_curve_lies_in_its_band_and_nothing_below_or_beside_it_overlaps(
    amounts: list[float], taken: float, ratios: list[tuple[float, float, float]]
) -> None:
    known = {
        amount: figure(estimate, estimate / below, estimate * above)
        for amount, (estimate, below, above) in zip(amounts, ratios, strict=False)
    }
    axis = outcome_axis(plan(taken, points=points(known)))
    assert axis is not None
    line, band = corners(axis.line), corners(axis.band)
    upper, lower = band[: len(line)], band[len(line) :][::-1]
    for place, above, below in zip(line, upper, lower, strict=True):
        assert place[0] == above[0] == below[0] and above[1] <= place[1] <= below[1]
    assert line == sorted(line) and 0 <= axis.marker <= 100
    shown = [tick.x for tick in axis.shown_ticks]
    assert shown[0] == min(tick.x for tick in axis.ticks) and shown[-1] == max(tick.x for tick in axis.ticks)
    assert len(shown) == 2 or all(right - left >= 8.5 for left, right in pairwise(shown)), "both ends are always shown"
    heights = [limit.y for limit in axis.limits]
    assert all(above + 14 <= below for below, above in pairwise(heights))
    assert all(math.isfinite(y) for _, y in band)
