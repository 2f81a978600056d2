"""Evidence for an estimate: the outcomes that fit what is planned, in the order in which they are believed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from core.engine.options.patterns import family_of
from core.service.plans.curves import CurvePlace, MeasuredPoint, Slope, log_excess, places_of, slope_of
from core.service.plans.outcomes import Outcome, Setting, Subject
from secateur_wire.plans import FigureSource

NEAR_SIZE: Final = 2.0
"""Ratio of sizes up to which a job of the team on another model of the family is believed before shipped rows."""
FARTHEST_SIZE: Final = 100.0
"""Ratio of sizes up to which a shipped row says anything of a model."""
SIZE_DEVIATION: Final = 0.25
"""Deviation for each factor of e between the sizes: assumed, not measured, as larger models lose less."""
FAMILY_DEVIATION: Final = 0.35
"""Deviation between families: assumed, not measured."""
SEED_DEVIATION: Final = 0.04
"""Deviation between seeds where it was not measured: the middle of those that were."""
TEXT_DEVIATION: Final = 0.3
"""Deviation between texts to measure on, where the planned one was not measured: that of jobs on three texts."""
CALIBRATION_DEVIATION: Final = 0.5
"""Deviation between texts to calibrate on: that of jobs calibrated on another text than the shipped rows."""
TOKENS_DEVIATION: Final = 0.1
"""Deviation for each factor of 2 between the numbers of calibration tokens."""
OWN_TEXT_DEVIATION: Final = 0.15
"""Deviation where the model writes its calibration text itself, and the outcome is of another text."""
PRUNED_DEVIATION: Final = 0.25
"""Deviation of a model that lost parts of another kind before."""
STRUCTURED_SLOPE: Final = Slope(0.8, 0.5)
"""Slope where units go and no curve of such a pattern was measured: of a prototype, and of one job on two texts."""
_LARGEST_TOKENS: Final = 0.5


@dataclass(frozen=True)
class Question:
    """Facts of a plan that decide the outcome.

    `was_pruned`: the model lost parts of another kind before.
    """

    setting: Setting
    subject: Subject
    calibration: str | None
    calibration_tokens: int
    evaluation: str | None
    writes_own_text: bool = False
    was_pruned: bool = False


@dataclass(frozen=True)
class Evidence:
    """Outcomes that are believed alike: their source, whose they are in words, and those that fit."""

    source: FigureSource
    words: str
    outcomes: Sequence[Outcome]

    def described(self, count: int) -> str:
        """Return in words that so many of its outcomes are meant."""
        kind = "job" if self.source == "jobs" else "measurement"
        return f"{count} {kind}{'s' if count > 1 else ''} {self.words}"

    def places(self, question: Question) -> list[CurvePlace]:
        """Return the places of its outcomes on the curve of what is planned."""
        return places_of([point for each in self.outcomes for point in _points(each, question)])


def evidence_for(question: Question, own: Iterable[Outcome], shipped: Iterable[Outcome]) -> list[Evidence]:
    """Return the evidence there is: the team's jobs on the model, on models like it, and what comes with the release.

    Outcomes of other settings than the planned one are left out.
    """
    fitting = [each for each in own if each.setting == question.setting and each.excess]
    same = [each for each in fitting if _is_same(each.subject, question.subject)]
    near = [each for each in fitting if each not in same and _is_near(each.subject, question.subject)]
    rows = [
        each
        for each in shipped
        if each.setting == question.setting and _size_distance(each, question) <= math.log(FARTHEST_SIZE)
    ]
    ordered = [
        Evidence("jobs", "of this team on this model", same),
        Evidence("jobs", "of this team on models of its family and about its size", near),
        Evidence("measurements", _whose(rows, question.subject), rows),
    ]
    return [each for each in ordered if each.outcomes]


def slope_for(question: Question, own: Iterable[Outcome], shipped: Iterable[Outcome]) -> Slope:
    """Return how steeply the loss rises in settings of the same family of patterns, else of any.

    Curves are of one model and setting, the mean over its texts.
    """
    outcomes = [*own, *shipped]
    family = family_of(question.setting.pattern)
    anywhere = slope_of(_curves(outcomes))
    alike = [each for each in outcomes if family_of(each.setting.pattern) == family]
    others = STRUCTURED_SLOPE if question.setting.shrinks else anywhere.of_others
    return slope_of(_curves(alike), assumed=others)


def _curves(outcomes: Iterable[Outcome]) -> list[list[tuple[float, float]]]:
    curves: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for outcome in outcomes:
        key = (outcome.setting, outcome.subject.family, outcome.subject.parameters, outcome.calibration_tokens)
        if outcome.excess:
            curves.setdefault(key, []).append((outcome.share, fmean(outcome.excess.values())))
    return [curve for curve in curves.values() if len(curve) > 1]


def _points(outcome: Outcome, question: Question) -> list[MeasuredPoint]:
    """Return the excess on each text of an outcome, on the planned one alone where that is among them."""
    known = outcome.excess
    is_same_text = question.evaluation in known and outcome.calibration == question.calibration
    excess = {name: known[name] for name in known if not is_same_text or name == question.evaluation}
    deviation = _model_deviation(outcome.subject, question.subject)
    if not is_same_text:
        deviation = math.hypot(deviation, TEXT_DEVIATION)
    if outcome.calibration != question.calibration:
        of_text = OWN_TEXT_DEVIATION if question.writes_own_text else CALIBRATION_DEVIATION
        deviation = math.hypot(deviation, of_text)
    if question.was_pruned and outcome.subject.revision != question.subject.revision:
        deviation = math.hypot(deviation, PRUNED_DEVIATION)
    if outcome.calibration_tokens and question.calibration_tokens:
        doublings = abs(math.log2(question.calibration_tokens / outcome.calibration_tokens))
        deviation = math.hypot(deviation, min(TOKENS_DEVIATION * doublings, _LARGEST_TOKENS))
    return [
        MeasuredPoint(outcome.share, value, math.hypot(deviation, _seed_deviation(outcome, value)))
        for value in excess.values()
    ]


def _seed_deviation(outcome: Outcome, excess: float) -> float:
    if outcome.deviation is None:
        return SEED_DEVIATION
    return outcome.deviation / math.exp(log_excess(excess))


def _model_deviation(of: Subject, wanted: Subject) -> float:
    if _is_same(of, wanted):
        return 0.0
    size = SIZE_DEVIATION * abs(math.log(of.parameters / wanted.parameters))
    return math.hypot(size, 0.0 if of.family == wanted.family else FAMILY_DEVIATION)


def _is_same(one: Subject, other: Subject) -> bool:
    if one.revision is not None and other.revision is not None:
        return one.revision == other.revision
    return (one.family, one.parameters) == (other.family, other.parameters)


def _is_near(one: Subject, other: Subject) -> bool:
    ratio = one.parameters / other.parameters
    return one.family == other.family and 1 / NEAR_SIZE <= ratio <= NEAR_SIZE


def _size_distance(outcome: Outcome, question: Question) -> float:
    return abs(math.log(outcome.subject.parameters / question.subject.parameters))


def _whose(rows: Sequence[Outcome], wanted: Subject) -> str:
    """Return whose the shipped rows are, in words."""
    if not rows:
        return ""
    names = sorted({each.subject.name for each in rows})
    others = [each.subject for each in rows if not _is_same(each.subject, wanted)]
    if not others:
        return f"on {' and '.join(names)}, as this model is"
    nearest = min(others, key=lambda each: abs(math.log(each.parameters / wanted.parameters)))
    ratio = wanted.parameters / nearest.parameters
    if 0.8 < ratio < 1.25:
        size = "about as large"
    else:
        size = f"{ratio:.2g} times smaller" if ratio > 1 else f"{1 / ratio:.2g} times larger"
    family = "of the same family" if nearest.family == wanted.family else f"of another family ({nearest.family})"
    return f"on another model, {' and '.join(names)}, {family} and {size}"
