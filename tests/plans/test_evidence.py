"""Rules of evidence: which outcomes are believed of a model, and how wide that makes a band."""

import math
from dataclasses import replace
from typing import Any

import pytest

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
