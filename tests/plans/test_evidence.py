"""Rules of estimates: which outcomes are believed of a model, and what is expected between their shares and beyond."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.service.plans.curves import (
    FARTHEST,
    LEAST_EXCESS,
    LEAST_SLOPE_DEVIATION,
    ExpectedExcess,
    MeasuredPoint,
    Slope,
    expected_excess,
    logit,
    places_of,
    slope_of,
)
from core.service.plans.evidence import Question, evidence_for
from core.service.plans.figures import LossEstimates
from core.service.plans.outcomes import Outcome, Subject, setting_of, shipped_outcomes

FRONTIER = setting_of("frontier", "unstructured", "uniform", {})
assert FRONTIER is not None
SMOL = Subject("Llama", 134_515_008, 106_168_320, "sha256:smol", "smollm2-135m")
TWICE = Subject("Llama", 2 * 134_515_008, 200_000_000, "sha256:twice", "twice")
LARGE = Subject("Llama", 7 * 10**9, 6 * 10**9, "sha256:large", "large")
HUGE = Subject("Llama", 70 * 10**9, 60 * 10**9, "sha256:huge", "huge")
OTHER = Subject("GPT-2", 134_515_008, 106_168_320, "sha256:other", "other")
ROW = Outcome(FRONTIER, replace(SMOL, revision=None), "measurements", 0.5, {"in": 0.4, "out": 0.44}, deviation=0.01)
JOB = Outcome(FRONTIER, SMOL, "jobs", 0.5, {"articles": 0.42}, calibration="text", calibration_tokens=16384)


def question(subject: Subject = SMOL, **changes: Any) -> Question:
    facts: dict[str, Any] = {"calibration": "text", "calibration_tokens": 16384, "evaluation": "articles"}
    return Question(**{"setting": FRONTIER, "subject": subject} | facts | changes)


def of(subject: Subject, outcome: Outcome = JOB) -> Outcome:
    return replace(outcome, subject=subject)


@pytest.mark.parametrize(
    ("asked", "own", "shipped", "words"),
    [
        (SMOL, [JOB], [ROW], ["of this team on this model", "on smollm2-135m, as this model is"]),
        (SMOL, [], [ROW], ["on smollm2-135m, as this model is"]),
        (SMOL, [of(TWICE)], [], ["of this team on models of its family and about its size"]),
        (SMOL, [of(LARGE), of(OTHER)], [], []),
        (LARGE, [JOB], [ROW], ["on another model, smollm2-135m, of the same family and 52 times smaller"]),
        (HUGE, [JOB], [ROW], []),
        (OTHER, [], [ROW], ["on another model, smollm2-135m, of another family (Llama) and about as large"]),
        (SMOL, [replace(JOB, setting=replace(FRONTIER, pattern="2:4"))], [], []),
        (SMOL, [replace(JOB, setting=replace(FRONTIER, recovery="distill, 10 minutes"))], [], []),
        (SMOL, [replace(JOB, excess={})], [], []),
    ],
    ids=[
        *("own first", "shipped", "near", "too far", "another size", "far too large", "another family"),
        *("another pattern", "another recovery", "without perplexity"),
    ],
)
def test_what_is_believed(asked: Subject, own: list[Outcome], shipped: list[Outcome], words: list[str]) -> None:
    assert [each.words for each in evidence_for(question(asked), own, shipped)] == words


@pytest.mark.parametrize(
    ("surer", "less_sure"),
    [
        ((SMOL, JOB), (SMOL, of(TWICE))),
        ((SMOL, of(Subject("Llama", 150_000_000, 110_000_000, "x"))), (SMOL, of(TWICE))),
        ((SMOL, JOB), (SMOL, replace(JOB, calibration="other"))),
        ((SMOL, JOB), (SMOL, replace(JOB, excess={"another": 0.42}))),
        ((SMOL, JOB), (SMOL, replace(JOB, calibration_tokens=1024))),
        ((SMOL, replace(JOB, deviation=0.001)), (SMOL, JOB)),
    ],
    ids=["another model", "a larger one", "another calibration", "another text", "fewer tokens", "one seed"],
)
def test_what_is_farther_makes_a_wider_band(surer: tuple[Subject, Outcome], less_sure: tuple[Subject, Outcome]) -> None:
    widths = []
    for subject, outcome in (surer, less_sure):
        ratio = LossEstimates.of(question(subject), [outcome], []).ratio(0.5)
        assert ratio is not None
        widths.append(ratio.high / ratio.low)
    assert widths[0] < widths[1]


def test_rows_that_are_left_out_lie_in_the_band_of_the_others() -> None:
    """The share that docs/planning-estimates.md publishes; rows that nothing else is like are not estimated at all."""
    rows, inside, estimated = shipped_outcomes(), 0, 0
    for row in rows:
        others = [each for each in rows if each is not row]
        for text, excess in row.excess.items():
            asked = Question(row.setting, row.subject, row.calibration, row.calibration_tokens, text)
            ratio = LossEstimates.of(asked, [], others).ratio(row.share)
            if ratio is not None:
                estimated += 1
                inside += ratio.low <= math.exp(excess) <= ratio.high
    assert estimated >= 12 and inside >= 0.8 * estimated


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
