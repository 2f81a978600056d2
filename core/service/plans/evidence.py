"""Evidence for an estimate: the outcomes that fit the plan, the most trusted first."""

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
"""Largest size ratio between two models of a family up to which a team's job comes before shipped rows."""
FARTHEST_SIZE: Final = 100.0
"""Largest size ratio up to which a shipped row is used for a model."""
SIZE_DEVIATION: Final = 0.25
"""Deviation for each factor of e between the sizes. It is assumed, not measured; larger models lose less."""
FAMILY_DEVIATION: Final = 0.35
"""Deviation between families: assumed, not measured."""
SEED_DEVIATION: Final = 0.04
"""Deviation between seeds where it was not measured: the median of the measured ones."""
TEXT_DEVIATION: Final = 0.3
"""Deviation between evaluation texts where the planned one was not measured: from jobs on three texts."""
CALIBRATION_DEVIATION: Final = 0.5
"""Deviation between calibration texts: from jobs calibrated on another text than the shipped rows."""
TOKENS_DEVIATION: Final = 0.1
"""Deviation for each factor of 2 between the numbers of calibration tokens."""
OWN_TEXT_DEVIATION: Final = 0.15
"""Deviation where the model generates its calibration text, and the outcome is from another text."""
PRUNED_DEVIATION: Final = 0.25
"""Deviation of a model that earlier lost parts of another kind."""
STRUCTURED_SLOPE: Final = Slope(0.8, 0.5)
"""Slope for removed units without a measured curve of such a pattern: from a prototype, and one job on two texts."""
_LARGEST_TOKENS: Final = 0.5


@dataclass(frozen=True)
class Question:
    """Facts of a plan that decide the outcome.

    `was_pruned`: the model earlier lost parts of another kind.
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
    """Outcomes with the same trust: their source, a phrase that says whose they are, and the outcomes that fit."""

    source: FigureSource
    words: str
    outcomes: Sequence[Outcome]

    def described(self, count: int) -> str:
        """Return a phrase with the number of its outcomes."""
        kind = "job" if self.source == "jobs" else "measurement"
        return f"{count} {kind}{'s' if count > 1 else ''} {self.words}"

    def places(self, question: Question) -> list[CurvePlace]:
        """Return the places of its outcomes on the curve of the plan."""
        return places_of([point for each in self.outcomes for point in _points(each, question)])


def evidence_for(question: Question, own: Iterable[Outcome], shipped: Iterable[Outcome]) -> list[Evidence]:
    """Return the evidence: the team's jobs on the model, then on similar models, then the shipped measurements.

    Outcomes with other settings than the planned one are left out.
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
        Evidence("measurements", _owner_phrase(rows, question.subject), rows),
    ]
    return [each for each in ordered if each.outcomes]


def slope_for(question: Question, own: Iterable[Outcome], shipped: Iterable[Outcome]) -> Slope:
    """Return the slope of the loss in settings of the same family of patterns, else of any.

    A curve belongs to one model and setting, and is the mean over its texts.
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
    """Return the excess on each text of an outcome; only on the planned text if it is among them."""
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


def _owner_phrase(rows: Sequence[Outcome], wanted: Subject) -> str:
    """Return a phrase that says whose measurements the shipped rows are."""
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
