"""Verdict on a pruned model in words, by stated bands; pages, cards, REST and the command line show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf
from typing import Final, get_args

from core.measurements.measurement import Measurement
from core.measurements.reader import measurements
from core.methods.method_info import MethodInfo
from core.methods.registry import METHODS
from secateur_wire.answers import AnswerBand, AnswerFigures, PairedLength, Score
from secateur_wire.equal_bytes import EqualBytes
from secateur_wire.jobs import Band, Verdict
from secateur_wire.metrics import MeasuredAccuracy, Metrics, Perplexity

KL_BANDS: Final = (0.3, 1.0)
"""Largest KL divergence a token, in nats, of a model that still answers, and of one whose answers change."""
LENGTH_BANDS: Final = (1.25, 3.0)
"""Largest factor between the lengths of answers in these bands."""
SCORE_BANDS: Final = (0.05, 0.5)
"""Largest share of the dense model's score that is lost in these bands."""
_ERRORS: Final = 2.0
"""Standard errors up to which a difference of lengths or scores counts as none."""
_BANDS: Final[tuple[AnswerBand, ...]] = get_args(AnswerBand)


@dataclass(frozen=True)
class AnswerVerdict:
    """Verdict on the answers to the questions of one set, in words."""

    band: AnswerBand
    reason: str

    @property
    def rank(self) -> int:
        """Return the place of the band, 0 for the best."""
        return _BANDS.index(self.band)


def verdict_on_answers(answers: Mapping[str, AnswerFigures]) -> AnswerVerdict | None:
    """Return the verdict on the set on which the answers are worst; None without figures.

    Of a set the worst of these decides: the KL divergence along the dense model's answers, the factor between the
    lengths, of thoughts too, and the share of the score that was lost. Lengths and scores count only beyond two
    standard errors.
    """
    verdicts = [_on_set(name, figures) for name, figures in answers.items()]
    return max(verdicts, key=lambda verdict: verdict.rank, default=None)


def band_of_kl(kl: float) -> AnswerBand:
    """Return the band of a model by its KL divergence a token alone."""
    return _BANDS[_rank(kl, KL_BANDS)]


def _on_set(name: str, figures: AnswerFigures) -> AnswerVerdict:
    ranks = [_rank(figures.kl, KL_BANDS), _rank(_factor(figures.length), LENGTH_BANDS)]
    if figures.thoughts is not None:
        ranks.append(_rank(_factor(figures.thoughts.length), LENGTH_BANDS))
    if figures.score is not None:
        ranks.append(_rank(_lost(figures.score), SCORE_BANDS))
    return AnswerVerdict(_BANDS[max(ranks)], f"on {name} {', '.join(_facts(figures))}")


def _facts(figures: AnswerFigures) -> Sequence[str]:
    error = "" if figures.kl_stderr is None else f" ± {figures.kl_stderr:.2g}"
    kl = "its predictions could not be compared" if figures.kl is None else f"KL {figures.kl:.2g}{error} nats a token"
    facts = [f"{kl} along the dense answers"]
    if figures.length.ratio is not None:
        facts.append(f"answers {figures.length.ratio:.2f} times as long")
    if figures.thoughts is not None and figures.thoughts.length.ratio is not None:
        facts.append(f"thoughts {figures.thoughts.length.ratio:.2f} times as long")
    if figures.score is not None:
        facts.append(f"{figures.score.dense:.0%} → {figures.score.pruned:.0%} of answers right")
    return facts


def _factor(length: PairedLength) -> float:
    """Return the factor between lengths; 1 where it is within the error of measuring it."""
    if length.ratio is None or abs(length.ratio - 1) <= _ERRORS * (length.ratio_stderr or 0.0):
        return 1.0
    return length.factor or inf


def _lost(score: Score) -> float:
    """Return the share of the dense model's score that was lost; 0 where that is within the error of measuring it."""
    if not score.dense or -score.change <= _ERRORS * (score.stderr or 0.0):
        return 0.0
    return -score.change / score.dense


def _rank(figure: float | None, limits: tuple[float, float]) -> int:
    return 0 if figure is None else sum(figure > limit for limit in limits)


CLOSE_TO_DENSE: Final = 1.2
"""Largest ratio of perplexities for a model that counts as close to the dense one."""
PERPLEXITY_BANDS: Final = (1.05, CLOSE_TO_DENSE, 2.0, 5.0)
"""Largest ratio of pruned to dense perplexity in each band; the last band, which has no limit, is left out."""
ACCURACY_BANDS: Final = (0.01, 0.03, 0.1, 0.25)
"""Largest fall of accuracy in each band except the last; 0.01 is one percentage point."""
NEAR_CHANCE: Final = 0.8
"""Smallest perplexity, over that of guessing among all tokens, of a model that has learnt next to nothing."""
NEAR_CHANCE_WORDS: Final = "the dense model is near chance"
_LEAST_BANDS: Final[Mapping[AnswerBand, Band]] = {
    "still answers": "as good as dense",
    "answers change": "noticeably worse",
    "no longer answers": "unusable",
}
"""Best band of a model with such answers."""
SAME_AMOUNT: Final = 0.01
"""Largest difference between two sparsities that count as the same amount removed."""


def verdict_on(
    method: str,
    pattern: str | None,
    sparsity: float | None,
    metrics: Metrics,
    random: Mapping[str, float] | None = None,
) -> Verdict | None:
    """Return the verdict on a job's model; None if nothing was pruned, or no quality was measured.

    Perplexity decides if it was measured, otherwise the accuracy on image sets, otherwise the accuracy on tasks. If
    there are several texts or sets, the one that lost most decides. `random` are ratios of perplexity, by text, of jobs
    that removed as much of the same model at random. Measurements of this kind that ship with the release are compared
    too. The words name a dense file of no more bytes that is better. Where answers were compared, the verdict on them
    comes first. Before all stands that the dense model is near chance: such a model has nothing to lose.
    """
    info = METHODS.get(method)
    if info is None or not info.prunes:
        return None
    verdict = _at_equal_bytes(_on_figures(info, pattern, sparsity, metrics, random), metrics.equal_bytes)
    answers = verdict_on_answers(metrics.answers)
    return _near_chance(verdict if answers is None else _with_answers(answers, verdict), metrics)


def _near_chance(verdict: Verdict | None, metrics: Metrics) -> Verdict | None:
    """Return the verdict, with the fact that the dense model guesses first, on the text that decided or on all texts.

    A pruned model that guesses too is unusable, however little it differs.
    """
    guessed = {name: each for name, each in metrics.perplexity.items() if _guesses(each.dense, each)}
    if verdict is None or not guessed or (verdict.on not in guessed and len(guessed) < len(metrics.perplexity)):
        return verdict
    name = verdict.on if verdict.on in guessed else next(iter(guessed))
    figure = guessed[name]
    fact = (
        f"the dense model's perplexity on {name} is {'infinite' if figure.dense is None else f'{figure.dense:,.0f}'}, "
        f"and that of guessing among its tokens is {figure.chance:,}"
    )
    if not _guesses(figure.pruned, figure):
        words = f"{NEAR_CHANCE_WORDS}; {verdict.words}"
        return verdict.model_copy(update={"words": words, "reason": f"{fact}; {verdict.reason}"})
    update = {"band": get_args(Band)[-1], "within_noise": False, "reason": f"{fact}; {verdict.reason}"}
    return verdict.model_copy(update=update | {"words": f"{NEAR_CHANCE_WORDS}, and so is this one"})


def is_near_chance(verdict: Verdict) -> bool:
    """Return whether the verdict says that the dense model guesses."""
    return verdict.words.startswith(NEAR_CHANCE_WORDS)


def _guesses(perplexity: float | None, figure: Perplexity) -> bool:
    """Return whether a model is near chance on a text; one whose perplexity is not finite is."""
    return figure.chance is not None and (perplexity is None or perplexity >= NEAR_CHANCE * figure.chance)


def _on_figures(
    info: MethodInfo,
    pattern: str | None,
    sparsity: float | None,
    metrics: Metrics,
    random: Mapping[str, float] | None,
) -> Verdict | None:
    """Return the verdict by perplexity or accuracy; None where neither was measured."""
    if metrics.perplexity:
        return _by_perplexity(info, pattern, sparsity, metrics, random or {})
    if metrics.accuracy:
        on, worst = min(metrics.accuracy.items(), key=lambda each: each[1].change or 0.0)
        return _by_accuracy(on, worst)
    if len(metrics.tasks) == 1:
        return _by_accuracy(*next(iter(metrics.tasks.items())))
    return _by_accuracy(None, mean_of_tasks(metrics))


def _at_equal_bytes(verdict: Verdict | None, compared: Mapping[str, EqualBytes]) -> Verdict | None:
    """Return the verdict with the best dense file of no more bytes, where that is better than the artifact."""
    worse = {name: each for name, each in compared.items() if each.outcome == "worse"}
    if verdict is None or not worse:
        return verdict
    on, worst = max(worse.items(), key=lambda each: each[1].difference or 0.0)
    return verdict.model_copy(
        update={
            "words": f"{verdict.words}, and worse than {worst.dense_model} at equal bytes",
            "reason": f"{verdict.reason}; on {on} it is {worst.words}",
        }
    )


def _with_answers(answers: AnswerVerdict, other: Verdict | None) -> Verdict:
    """Return the verdict on answers, joined with the one on other figures; of the two bands the worse one counts."""
    bands: tuple[Band, ...] = get_args(Band)
    least = _LEAST_BANDS[answers.band]
    if other is None:
        return Verdict(
            band=least,
            within_noise=False,
            worse_than_random=False,
            figure="answers",
            on=None,
            ratio=None,
            change=None,
            words=answers.band,
            reason=answers.reason,
            answers=answers.band,
        )
    band = max(other.band, least, key=lambda each: bands.index(each))
    return other.model_copy(
        update={
            "band": band,
            "within_noise": other.within_noise and answers.rank == 0,
            "words": f"{answers.band}; by {other.figure} {other.words}",
            "reason": f"{answers.reason}; {other.reason}",
            "answers": answers.band,
        }
    )


def band_of(ratio: float | None) -> Band:
    """Return the band of a ratio of perplexities; a ratio that is not finite has the worst band."""
    return _band(ratio, PERPLEXITY_BANDS)


def within_error(figure: MeasuredAccuracy) -> bool:
    """Return whether an accuracy differs from the dense model's by no more than its standard errors."""
    error = hypot(figure.dense_stderr or 0.0, figure.pruned_stderr or 0.0)
    return figure.change is not None and abs(figure.change) <= error


def mean_of_tasks(metrics: Metrics) -> MeasuredAccuracy:
    """Return the mean accuracy of the tasks with its standard error."""
    errors = [hypot(each.dense_stderr or 0.0, each.pruned_stderr or 0.0) for each in metrics.tasks.values()]
    mean = metrics.task_mean
    if mean is None or not errors:
        return MeasuredAccuracy()
    return MeasuredAccuracy(dense=mean.dense, pruned=mean.pruned, dense_stderr=hypot(*errors) / len(errors))


def _by_perplexity(
    info: MethodInfo, pattern: str | None, sparsity: float | None, metrics: Metrics, random: Mapping[str, float]
) -> Verdict:
    on, worst = max(metrics.perplexity.items(), key=lambda each: _ratio(each[1]))
    ratio = worst.ratio
    like = [] if sparsity is None else _measured(pattern, sparsity)
    spread = _spread([each for each in like if each.method == info.id])
    is_within_spread = ratio is not None and spread is not None and abs(ratio - 1) <= spread
    is_within_error = worst.is_within_error and ratio is not None and ratio <= CLOSE_TO_DENSE
    is_same = is_within_spread or is_within_error
    own = {name: other for name, other in random.items() if _ratio(metrics.perplexity.get(name)) > other}
    shipped = _random_bound(like, metrics)
    beaten_by = own.get(on) or next(iter(own.values()), None)
    if beaten_by is None and shipped is not None and (ratio is None or ratio > shipped):
        beaten_by = shipped
    worse = beaten_by is not None and not info.is_baseline
    band = "as good as dense" if is_same else band_of(ratio)
    reason = f"perplexity on {on} is {'no longer a number' if ratio is None else _as_factor(ratio)}"
    if ratio is not None and worst.ratio_stderr is not None:
        reason += f" (± {worst.ratio_stderr:.2g})"
    if is_within_error:
        reason += ", which is within the error of measuring it"
    elif is_within_spread and spread is not None:
        reason += f", which is within the ± {spread:.1%} by which such jobs differ from seed to seed"
    if worse and beaten_by is not None:
        reason += f"; after removing as much at random it was measured to be {_as_factor(beaten_by)}"
    return Verdict(
        band=band,
        within_noise=is_same,
        worse_than_random=worse,
        figure="perplexity",
        on=on,
        ratio=ratio,
        change=None,
        words=f"{band}, and worse than random would do" if worse else band,
        reason=reason,
    )


def _by_accuracy(on: str | None, figure: MeasuredAccuracy) -> Verdict | None:
    change = figure.change
    if change is None:
        return None
    is_same = within_error(figure)
    band = "as good as dense" if is_same else _band(-change, ACCURACY_BANDS)
    where = "on the mean of the tasks" if on is None else f"on {on}"
    reason = f"accuracy {where} {'rose' if change > 0 else 'fell'} by {abs(change) * 100:.1f} points"
    return Verdict(
        band=band,
        within_noise=is_same,
        worse_than_random=False,
        figure="accuracy",
        on=on,
        ratio=None,
        change=change,
        words=band,
        reason=f"{reason}, which is within the error of measuring it" if is_same else reason,
    )


def _band(loss: float | None, limits: tuple[float, ...]) -> Band:
    bands: tuple[Band, ...] = get_args(Band)
    if loss is None:
        return bands[-1]
    rounded = round(loss, 9)  # rounding errors of a subtraction must not move a value on the limit into the next band
    return next((band for band, limit in zip(bands, limits, strict=False) if rounded <= limit), bands[-1])


def _ratio(figure: Perplexity | None) -> float:
    """Return the ratio; infinite if the pruned perplexity is not finite."""
    return float("inf") if figure is None or figure.ratio is None else figure.ratio


def _as_factor(ratio: float) -> str:
    return f"{ratio:,.0f} times the dense model's" if ratio >= 100 else f"{ratio:.3g} times the dense model's"


def _measured(pattern: str | None, sparsity: float) -> list[Measurement]:
    """Return this release's measurements with as much removed in the same pattern and no training afterwards."""
    return [
        each
        for each in (*measurements("zeros"), *measurements("structured"))
        if each.pattern == pattern and each.recovery is None and abs(each.sparsity - sparsity) <= SAME_AMOUNT
    ]


def _spread(rows: list[Measurement]) -> float | None:
    """Return the largest standard deviation over seeds, relative to its mean; None if no row has several seeds."""
    known = [
        text.deviation / text.mean for row in rows for text in row.perplexity.values() if text.deviation is not None
    ]
    return max(known, default=None)


def _random_bound(rows: list[Measurement], metrics: Metrics) -> float | None:
    """Return the largest ratio of random removal on any text, for models with as many parameters; None if unknown."""
    dense = None if metrics.parameters is None else metrics.parameters.dense
    ratios = [
        text.mean + (text.deviation or 0.0)
        for row in rows
        if row.model.parameters == dense and METHODS[row.method].is_baseline
        for text in row.perplexity.values()
    ]
    return max(ratios, default=None)
