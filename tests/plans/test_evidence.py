"""Rules of evidence: which outcomes are believed of a model, and how wide that makes a band."""

import math
from dataclasses import replace
from typing import Any

import pytest

from core.measurements.reader import measurements
from core.service.plans import evidence
from core.service.plans.evidence import Question, evidence_for
from core.service.plans.figures import LossEstimates
from core.service.plans.outcomes import Outcome, Setting, Subject, setting_of, shipped_outcomes

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


def test_a_model_pruned_before_and_text_of_its_own_are_less_sure() -> None:
    plain, cut, own = (
        LossEstimates.of(question(LARGE, **more), [], [replace(ROW, calibration="text")]).ratio(0.5)
        for more in ({}, {"was_pruned": True}, {"writes_own_text": True, "calibration": "self"})
    )
    assert plain is not None and cut is not None and own is not None
    assert plain.high < own.high < cut.high


def test_the_nearest_source_that_reaches_an_amount_is_taken() -> None:
    low = replace(JOB, share=0.2, excess={"articles": 0.02})
    known = LossEstimates.of(question(), [low], shipped_outcomes())
    near, far = known.ratio(0.3), known.ratio(0.6)
    assert near is not None and far is not None
    assert (near.source, far.source) == ("jobs", "measurements")
    assert near.count == 1 and near.basis == "1 job of this team on this model, at 20% of the weights"


def test_what_an_artifact_lost_before_is_taken_off() -> None:
    fresh, again = (LossEstimates.of(question(), [], shipped_outcomes(), lost) for lost in (0.0, 0.5))
    whole, rest = fresh.ratio(0.65), again.ratio(0.65)
    before = fresh.ratio(0.5)
    assert whole is not None and rest is not None and before is not None
    assert rest.estimate == pytest.approx(whole.estimate / before.estimate)
    nothing = again.ratio(0.4)
    assert nothing is not None and nothing.estimate == 1, "that many weights are zero already"


def test_speed_is_told_between_what_was_timed_and_the_dense_model_alone() -> None:
    setting = Setting("frontier", "structured", "uniform", "{}")
    timed = Outcome(setting, SMOL, "jobs", 0.3, {"articles": 0.6}, latency={"prefill": 0.7}, latency_spread=0.02)
    known = LossEstimates.of(question(setting=setting), [timed], [])
    half = known.latency(0.15)["prefill_ratio"]
    assert half.estimate == pytest.approx(0.85) and half.low < 0.85 < half.high and half.count == 1
    assert known.latency(0.5) == {} and "decode_ratio" not in known.latency(0.3)
    assert (
        LossEstimates.of(question(LARGE, setting=setting), [], [replace(timed, source="measurements")]).latency(0.2)
        == {}
    )


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


def test_every_shipped_row_is_an_outcome() -> None:
    assert len(shipped_outcomes()) == len(measurements("zeros")) + len(measurements("structured"))


def test_bands_that_are_assumed_are_wider_than_those_between_seeds() -> None:
    texts = (evidence.OWN_TEXT_DEVIATION, evidence.TEXT_DEVIATION, evidence.CALIBRATION_DEVIATION)
    assert min(*texts, evidence.SIZE_DEVIATION, evidence.FAMILY_DEVIATION) > evidence.SEED_DEVIATION
