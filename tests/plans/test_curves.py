"""Rules of interpolation: between measured shares, and how far beyond them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.service.plans.curves import (
    FARTHEST,
    LEAST_EXCESS,
    LEAST_SLOPE,
    LEAST_SLOPE_DEVIATION,
    ExpectedExcess,
    MeasuredPoint,
    Slope,
    expected_excess,
    logit,
    places_of,
    slope_of,
)

SLOPE = Slope(1.5, 0.4)
HALF = MeasuredPoint(0.5, 0.4, 0.05)
MORE = MeasuredPoint(0.7, 1.2, 0.05)
shares = st.floats(0.01, 0.95)
measured = st.lists(
    st.builds(MeasuredPoint, shares, st.floats(0.0, 20.0), st.floats(0.01, 0.5)), min_size=1, max_size=6
)


def at(share: float, *points: MeasuredPoint) -> ExpectedExcess:
    expected = expected_excess(places_of(points), share, SLOPE)
    assert expected is not None
    return expected


def width(expected: ExpectedExcess) -> float:
    return math.log(expected.high / expected.low)


def test_a_measured_share_is_expected_as_it_was_measured() -> None:
    assert at(0.5, HALF, MORE).excess == pytest.approx(0.4)
    assert at(0.7, HALF, MORE).excess == pytest.approx(1.2)
    assert at(0.5, HALF, MeasuredPoint(0.5, 0.8, 0.05)).excess == pytest.approx(math.sqrt(0.4 * 0.8)), (
        "the mean of logarithms"
    )


def test_between_two_shares_it_is_straight_in_logits() -> None:
    middle = 1 / (1 + math.exp(-(logit(0.5) + logit(0.7)) / 2))
    assert at(middle, HALF, MORE).excess == pytest.approx(math.sqrt(0.4 * 1.2))


@pytest.mark.parametrize(
    ("nearer", "farther"),
    [
        ((0.5, (HALF,)), (0.4, (HALF,))),
        ((0.4, (HALF,)), (0.3, (HALF,))),
        ((0.55, (HALF,)), (0.65, (HALF,))),
        ((0.6, (HALF, MORE)), (0.6, (HALF,))),
        ((0.5, (HALF,)), (0.5, (MeasuredPoint(0.5, 0.4, 0.2),))),
        ((0.5, (HALF,)), (0.5, (HALF, MeasuredPoint(0.5, 0.8, 0.05)))),
    ],
    ids=["at it", "below", "above", "between two", "noise", "two that differ"],
)
def test_a_band_widens_with_what_is_less_sure(
    nearer: tuple[float, tuple[MeasuredPoint, ...]], farther: tuple[float, tuple[MeasuredPoint, ...]]
) -> None:
    assert width(at(nearer[0], *nearer[1])) < width(at(farther[0], *farther[1]))


def test_far_beyond_the_largest_share_nothing_is_said_and_below_the_least_always_something() -> None:
    odds = math.exp(FARTHEST)
    assert expected_excess(places_of([HALF]), odds / (1 + odds) - 0.01, SLOPE) is not None
    assert expected_excess(places_of([HALF]), odds / (1 + odds) + 0.01, SLOPE) is None
    assert expected_excess([], 0.5, SLOPE) is None
    assert 0 < at(0.001, HALF).excess < 1e-3


def test_the_least_slope_bounds_how_little_changes_beyond_what_was_measured() -> None:
    unsure = Slope(1.5, 5.0)
    below, above = (expected_excess(places_of([HALF]), share, unsure) for share in (0.2, 0.6))
    assert below is not None and above is not None
    top = at(0.5, HALF).high
    assert below.high == pytest.approx(top * 0.25**LEAST_SLOPE)
    assert above.low == pytest.approx(at(0.5, HALF).low * 1.5**LEAST_SLOPE)


def test_shares_that_fell_back_are_taken_together() -> None:
    back = MeasuredPoint(0.6, 0.2, 0.05)
    assert at(0.5, HALF, back).excess == pytest.approx(at(0.6, HALF, back).excess) == pytest.approx(math.sqrt(0.08))


@given(measured, shares, shares)
def test_removing_more_never_costs_less(points: list[MeasuredPoint], one: float, other: float) -> None:
    less, more = (expected_excess(places_of(points), share, SLOPE) for share in sorted((one, other)))
    if less is not None and more is not None:
        assert less.excess <= more.excess * (1 + 1e-9)
    for each in (less, more):
        assert each is None or (0 < each.low <= each.excess * (1 + 1e-9) and each.excess <= each.high * (1 + 1e-9))


def test_slopes_are_those_of_curves_with_two_shares() -> None:
    line = [(0.5, 0.4), (0.7, 0.4 * math.exp(2 * logit(0.7)))]
    assert slope_of([line]).mean == pytest.approx(2.0)
    assert slope_of([line]).deviation == LEAST_SLOPE_DEVIATION, "one curve says nothing of how they differ"
    steep = [(0.5, 0.4), (0.7, 0.4 * math.exp(4 * logit(0.7)))]
    both = slope_of([line, steep])
    assert both.mean == pytest.approx(3.0) and both.deviation > math.sqrt(2)
    assert slope_of([[(0.5, 0.4)]], assumed=SLOPE) == SLOPE and slope_of([]).deviation > LEAST_SLOPE_DEVIATION
    assert at(0.5, MeasuredPoint(0.5, -0.1, 0.05)).excess == pytest.approx(LEAST_EXCESS), (
        "better than dense: nothing lost"
    )
