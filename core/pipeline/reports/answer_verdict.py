"""Verdict on a pruned model's answers, by stated bands: whether it still does what the dense model does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, get_args

from secateur_wire.answers import AnswerBand, AnswerFigures, PairedLength, Score

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
