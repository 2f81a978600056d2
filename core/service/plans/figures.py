"""Figures of a plan: each has a band and a source, or the reason why it is unknown."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from core.engine.architectures.description import Description
from core.engine.exporters.registry import OFFERED
from core.pipeline.recipes.request import ResolvedRequest
from core.service.plans.amounts import ArtifactForm, Scale
from core.service.plans.curves import CurvePlace, ExpectedExcess, Slope, expected_excess
from core.service.plans.evidence import Evidence, Question, evidence_for, slope_for
from core.service.plans.outcomes import Latency, Outcome
from core.service.plans.past_jobs import DensePerplexity
from secateur_wire.jobs import Estimate
from secateur_wire.plans import FigureName, PlanFigure
from secateur_wire.progress import MOST_FACTOR, seconds_range

_LATENCY_FIGURES: Final[Mapping[Latency, FigureName]] = {"prefill": "prefill_ratio", "decode": "decode_ratio"}
_LATENCY_REACH: Final = 0.05
"""Share beyond the largest timed share up to which a line is continued."""
_LEAST_TIMING_ERROR: Final = 0.03
_TIMING_ERROR: Final = 0.15
"""Error of the gain in speed, as a share of it. It is assumed, because shapes between measured ones run differently."""
_LARGEST_TIMED_RATIO: Final = 2.0
"""Largest size ratio up to which the timings of another model are used."""
_FORMULA_ERROR: Final = 5.0
"""Factor of uncertainty of a time from the formula alone, before any job has corrected it."""


@dataclass(frozen=True)
class LossEstimates:
    """Evidence about the loss in one setting of a model, the most trusted first.

    `lost` is the share of the same kind that the model has lost before.
    """

    question: Question
    evidence: Sequence[Evidence]
    slope: Slope
    lost: float = 0.0

    @classmethod
    def of(
        cls, question: Question, own: Iterable[Outcome], shipped: Iterable[Outcome], lost: float = 0.0
    ) -> "LossEstimates":
        own, shipped = list(own), list(shipped)
        evidence = evidence_for(question, own, shipped)
        return cls(question, evidence, slope_for(question, own, shipped), lost)

    def expected(self, share: float) -> tuple[ExpectedExcess, Evidence] | None:
        """Return the excess that a further removal adds, and its evidence; None without near measurements."""
        total = self._total(share)
        for each, places in zip(self.evidence, self._places, strict=True):
            expected = expected_excess(places, total, self.slope) if 0 < total < 1 else None
            if expected is None:
                continue
            before = expected_excess(places, self.lost, self.slope) if self.lost else None
            return (expected if before is None else expected.less(before.excess)), each
        return None

    @cached_property
    def _places(self) -> list[list[CurvePlace]]:
        """Return the places of each evidence: the same for every share."""
        return [each.places(self.question) for each in self.evidence]

    def _total(self, share: float) -> float:
        """Return the total removed share after the job.

        New zeros overlap with earlier ones; units are removed from what is left.
        """
        if self.question.setting.shrinks:
            return 1 - (1 - self.lost) * (1 - share)
        return max(share, self.lost)

    def ratio(self, share: float) -> PlanFigure | None:
        """Return the expected perplexity, as a ratio to the given model's."""
        return self._figure(share, math.exp)

    def excess(self, share: float) -> PlanFigure | None:
        """Return the expected excess itself."""
        return self._figure(share, lambda excess: excess)

    def _figure(self, share: float, of_excess: Callable[[float], float]) -> PlanFigure | None:
        expectation = self.expected(share)
        if expectation is None:
            return None
        expected, evidence = expectation
        count = len(evidence.outcomes)
        shares = sorted({round(each.share, 2) for each in evidence.outcomes})
        measured = f"{shares[0]:.0%}" if len(shares) == 1 else f"{shares[0]:.0%} to {shares[-1]:.0%}"
        what = "the blocks' parameters" if self.question.setting.shrinks else "the weights"
        basis = f"{evidence.described(count)}, at {measured} of {what}"
        return PlanFigure(
            estimate=of_excess(expected.excess),
            low=of_excess(expected.low),
            high=of_excess(expected.high),
            source=evidence.source,
            count=count,
            basis=basis,
        )

    def latency(self, share: float) -> dict[FigureName, PlanFigure]:
        """Return the expected speed, between the timed shares and the dense model's; nothing beyond them."""
        figures: dict[FigureName, PlanFigure] = {}
        for kind, name in _LATENCY_FIGURES.items():
            for evidence in self.evidence:
                timed = [
                    each
                    for each in evidence.outcomes
                    if kind in each.latency and _is_about_as_large(each, self.question)
                ]
                figure = _interpolated(kind, timed, self._total(share), evidence)
                if figure is not None:
                    figures[name] = figure
                    break
        return figures


def bits_per_byte_figure(perplexity: PlanFigure, dense: DensePerplexity) -> PlanFigure:
    """Return the expected bits per byte that follow from the expected perplexity.

    Both are of the same tokens, so the ratio is ln(pruned perplexity) ÷ ln(dense perplexity).
    """

    def ratio(of_perplexity: float) -> float:
        return 1 + math.log(of_perplexity) / math.log(dense.value)

    return perplexity.model_copy(
        update={
            "estimate": ratio(perplexity.estimate),
            "low": ratio(perplexity.low),
            "high": ratio(perplexity.high),
            "basis": f"{perplexity.basis}; the dense perplexity of {dense.value:.3g} was measured on {dense.text}",
        }
    )


def size_figure(
    description: Description, request: ResolvedRequest, form: ArtifactForm, scale: Scale, amount: float
) -> PlanFigure:
    """Return the bytes of the artifact's weights as stored in its files, or of the added file that counts."""
    nearest, step = scale.rounded(amount)
    ratio = form.stored_bytes(description, request, scale.sparsity(nearest)) / description.bytes
    kept = "its own type" if form.dtype == "keep" else form.dtype
    basis = f"counted: what is left of every tensor, in {kept}"
    if form.file_bytes is not None:
        basis = "counted: what is left of the sizes of the dense model's tensors in the added file"
    if OFFERED[form.format].leaves_out_zeros:
        basis = f"counted: a bit for every weight that may be zero, and the others in {kept}"
    return PlanFigure(
        estimate=ratio, low=max(ratio - step, 0.0), high=min(ratio + step, 1.0), source="account", count=0, basis=basis
    )


def time_figures(estimate: Estimate) -> dict[FigureName, PlanFigure]:
    """Return the duration of a job in seconds; nothing where it is not known."""
    seconds = _seconds_figure(estimate)
    return {} if seconds is None else {"seconds": seconds}


def _seconds_figure(estimate: Estimate) -> PlanFigure | None:
    """Return the duration of the job from the fleet's estimate: a formula that past jobs correct."""
    if estimate.seconds is None:
        return None
    seconds, jobs, deviation = estimate.seconds, estimate.basis.jobs, estimate.basis.seconds_deviation
    if deviation is None:
        basis = "a formula alone, which no job has corrected yet"
        low, high = seconds / _FORMULA_ERROR, seconds * _FORMULA_ERROR
        return PlanFigure(estimate=seconds, low=low, high=high, source="account", count=jobs, basis=basis)
    low, high = seconds_range(seconds, deviation)
    match estimate.basis.seconds_from:
        case "pace":
            basis, source = "a formula, at the pace that a worker measured when it began", "account"
        case "jobs_of_other_methods":
            basis, source = "a formula, corrected by jobs of other methods in this queue", "jobs"
        case _:
            basis, source = f"a formula, corrected by {jobs} jobs of the same method and queue", "jobs"
    return PlanFigure(estimate=seconds, low=low, high=high, source=source, count=jobs, basis=basis)


def split_by_band(
    figures: Mapping[FigureName, PlanFigure],
) -> tuple[dict[FigureName, PlanFigure], dict[FigureName, PlanFigure]]:
    """Return the known figures, and those whose band is too wide to call them known: over a factor of 20.

    Counted bytes are always known.
    """
    wide = {name for name, each in figures.items() if name != "bytes_ratio" and each.high > MOST_FACTOR * each.low}
    return (
        {name: each for name, each in figures.items() if name not in wide},
        {name: each for name, each in figures.items() if name in wide},
    )


def _is_about_as_large(outcome: Outcome, question: Question) -> bool:
    ratio = outcome.subject.parameters / question.subject.parameters
    return 1 / _LARGEST_TIMED_RATIO <= ratio <= _LARGEST_TIMED_RATIO


def _interpolated(kind: Latency, timed: Sequence[Outcome], share: float, evidence: Evidence) -> PlanFigure | None:
    if not timed or share > max(each.share for each in timed) + _LATENCY_REACH:
        return None
    by_share: dict[float, list[Outcome]] = {}
    for each in timed:
        by_share.setdefault(round(each.share, 3), []).append(each)
    line = [(0.0, 1.0)] + [
        (at, sum(each.latency[kind] for each in group) / len(group)) for at, group in sorted(by_share.items())
    ]
    end = next((number for number in range(1, len(line)) if line[number][0] >= share), len(line) - 1)
    (left, before), (right, after) = line[end - 1], line[end]
    ratio = before + (after - before) * (share - left) / (right - left)
    spread = max(each.latency_spread for each in timed)
    error = ratio * max(spread, _LEAST_TIMING_ERROR) + _TIMING_ERROR * abs(1 - ratio)
    return PlanFigure(
        estimate=ratio,
        low=max(ratio - error, 0.0),
        high=ratio + error,
        source=evidence.source,
        count=len(timed),
        basis=f"{evidence.described(len(timed))} that timed it",
    )
