"""Ratios of two models' perplexities and bits per byte on the same windows, and their standard errors.

Bits per byte are the negative log-likelihood of a text in bits, divided by its UTF-8 bytes. The figure compares models
with different tokenizers, because it does not depend on the number of tokens.
"""

from collections.abc import Sequence
from math import exp, isfinite, log, log2, sqrt
from statistics import fmean, stdev
from typing import Final

from secateur_wire.metrics import BitsPerByte, Perplexity

FEWEST_WINDOWS: Final = 4
"""Fewest windows for a meaningful spread."""


def ratio_stderr(dense_losses: Sequence[float], pruned_losses: Sequence[float]) -> float | None:
    """Return the standard error of pruned ÷ dense perplexity from the mean losses of the same windows, in nats.

    Windows are paired. All have the same number of tokens, so that the logarithm of the ratio is the mean of their
    differences, with the standard error s ÷ √n; times the ratio, it is the result. None where the windows are too few,
    or not the same.
    """
    if len(dense_losses) != len(pruned_losses) or len(dense_losses) < FEWEST_WINDOWS:
        return None
    differences = [after - before for before, after in zip(dense_losses, pruned_losses, strict=True)]
    mean = fmean(differences)
    if not isfinite(mean) or mean > 700.0:
        return None
    return exp(mean) * stdev(differences) / sqrt(len(differences))


def bits_per_byte(perplexity: Perplexity, *, tokens: int, text_bytes: int | None, stderr: float | None) -> BitsPerByte:
    """Return the bits per byte that follow from perplexities on the same predicted `tokens`.

    A perplexity P is exp of the mean loss, so the figure is `tokens` · log₂ P ÷ `text_bytes`. The ratio is
    ln P(pruned) ÷ ln P(dense). `stderr` is that of the ratio, from `bits_ratio_stderr`.
    """

    def bits(value: float | None) -> float | None:
        return tokens * log2(value) / text_bytes if text_bytes and value is not None and isfinite(value) else None

    return BitsPerByte(
        dense=bits(perplexity.dense),
        **({} if perplexity.before_recovery is None else {"before_recovery": bits(perplexity.before_recovery)}),
        pruned=bits(perplexity.pruned),
        ratio=bits_ratio(perplexity.dense, perplexity.pruned),
        ratio_stderr=stderr,
        bytes=text_bytes,
        tokens=tokens,
    )


def bits_ratio(dense: float | None, pruned: float | None) -> float | None:
    """Return the ratio of bits per byte of two perplexities on the same tokens; None where one gives no number."""
    if dense is None or pruned is None or not (isfinite(dense) and isfinite(pruned)) or dense <= 1:
        return None
    return log(pruned) / log(dense)


def bits_ratio_stderr(dense_losses: Sequence[float], pruned_losses: Sequence[float]) -> float | None:
    """Return the standard error of pruned ÷ dense bits per byte from the mean losses of the same windows, in nats.

    Windows are paired and have equally many tokens. The error is that of a ratio of means: with the residuals
    pᵢ − ratio · dᵢ, it is s(residuals) ÷ (√n · mean d). None where the windows are too few, or not the same.
    """
    if len(dense_losses) != len(pruned_losses) or len(dense_losses) < FEWEST_WINDOWS:
        return None
    mean = fmean(dense_losses)
    ratio = fmean(pruned_losses) / mean if mean > 0 else float("nan")
    if not isfinite(ratio):
        return None
    residuals = [after - ratio * before for before, after in zip(dense_losses, pruned_losses, strict=True)]
    return stdev(residuals) / (sqrt(len(residuals)) * mean)
