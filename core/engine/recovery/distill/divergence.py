"""Kullback-Leibler divergence of a student's distribution from a teacher's, and its gradient, a few rows at a time.

The divergence of whole logits takes a dozen passes over [tokens, vocabulary] in float32, each larger than a cache. Here
value and gradient are computed together, for a few rows that fit in the cache. Only the gradient is kept, in the dtype
of the logits.

A teacher's distribution may be cut to its `k` most likely words and the mass of all others, `TopWords`. The divergence
is then that of these k + 1 events. It is at most the full KL(p‖q), because the divergence of coarser events is a lower
bound, and equal to it where k is the vocabulary size.

The loss of the right labels can be added (`Labels`), as hard targets in Hinton's paper.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.nn import functional

_ROWS_BYTES = 2**22
"""Bytes in float32 of the rows that are processed together."""


@dataclass(frozen=True)
class TopWords:
    """Most likely next words of each token: ids [tokens, k], and their log-probabilities.

    `log_tail_N1` is the log-mass of all other words, minus infinity where there is none.
    """

    words_NK: Tensor
    log_p_NK: Tensor
    log_tail_N1: Tensor

    @classmethod
    def of(cls, log_p_NV: Tensor, k: int) -> "TopWords":
        """Return the most likely `k` words of log-probabilities, at most all of them."""
        log_p_NK, words_NK = log_p_NV.topk(min(k, log_p_NV.shape[1]), dim=1)
        return cls(words_NK.int(), log_p_NK, _without(log_p_NV, words_NK).logsumexp(1, keepdim=True))

    @classmethod
    def joined(cls, parts: list["TopWords"]) -> "TopWords":
        """Return the words of several runs of tokens, one after the other."""
        return cls(*(torch.cat(each) for each in zip(*(part.tensors for part in parts), strict=True)))

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.words_NK, self.log_p_NK, self.log_tail_N1

    def selected(self, rows_N: Tensor) -> "TopWords":
        """Return the words of the tokens where `rows_N` is True."""
        return TopWords(*(each[rows_N] for each in self.tensors))

    def rows(self, start: int, end: int) -> "TopWords":
        """Return the words of tokens `start` to `end`."""
        return TopWords(*(each[start:end] for each in self.tensors))


@dataclass(frozen=True)
class Labels:
    """Right class of each row [rows], negative where unknown, and the weight of their loss, between 0 and 1."""

    labels_N: Tensor
    weight: float

    @property
    def share(self) -> Tensor:
        """Return the weight of each known label."""
        return self.weight / (self.labels_N >= 0).sum().clamp_min(1)


def divergence(given_NV: Tensor, wanted: Tensor | TopWords, temperature: float, labels: Labels | None = None) -> Tensor:
    """Return (1 - w) · T² · KL(wanted ‖ given) + w · the cross-entropy of labels, each the mean over rows, in nats.

    `given_NV` are logits; `wanted` are logits of the same shape, or top words of a distribution at this temperature.
    Labels of weight w are compared with the logits at temperature 1.
    """
    with torch.no_grad():
        value, gradient_NV = _value_and_gradient(given_NV, wanted, temperature, labels)
    if not given_NV.requires_grad:
        return value
    with_gradient: Callable[[Tensor, Tensor, Tensor], Tensor] = _WithGradient.apply
    return with_gradient(given_NV, gradient_NV, value)


class _WithGradient(torch.autograd.Function):
    """Value with a gradient that is already computed."""

    @staticmethod
    def forward(context: FunctionCtx, given_NV: Tensor, gradient_NV: Tensor, value: Tensor) -> Tensor:
        context.save_for_backward(gradient_NV)
        return value.clone()

    @staticmethod
    def backward(context: BackwardCFunction, by_value: Tensor) -> tuple[Tensor, None, None]:
        (gradient_NV,) = context.saved_tensors
        return gradient_NV * by_value.to(gradient_NV.dtype), None, None


def softened(logits_NV: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities at a temperature, in float32."""
    logits_NV = logits_NV.float()
    return functional.log_softmax(logits_NV if temperature == 1 else logits_NV / temperature, dim=-1)


def row_slices(logits_NV: Tensor) -> list[tuple[int, int]]:
    """Return (start, end) of the rows that are processed together."""
    rows, words = logits_NV.shape
    size = max(1, _ROWS_BYTES // (4 * words))
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def _value_and_gradient(
    given_NV: Tensor, wanted: Tensor | TopWords, temperature: float, labels: Labels | None
) -> tuple[Tensor, Tensor]:
    gradient_NV = torch.empty_like(given_NV)
    total, total_of_labels = torch.zeros(2, dtype=torch.float64)
    rows, weight = len(given_NV), labels.weight if labels else 0.0
    label_share = labels.share if labels else 0.0
    for start, end in row_slices(given_NV):
        log_q = softened(given_NV[start:end], temperature)
        if isinstance(wanted, TopWords):
            value, slope = _of_top_words(log_q, wanted.rows(start, end))
        else:
            value, slope = _of_all_words(log_q, softened(wanted[start:end], temperature))
        total = total + value
        slope.mul_((1 - weight) * (temperature / rows))
        if labels:
            value, label_slope = _of_labels(softened(given_NV[start:end], 1), labels.labels_N[start:end])
            total_of_labels = total_of_labels + value
            slope.add_(label_slope.mul_(label_share))
        gradient_NV[start:end] = slope
    total = (1 - weight) * (total * temperature**2 / rows)
    return (total + total_of_labels * label_share).float(), gradient_NV


def _of_all_words(log_q: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over rows of KL(p‖q), and its derivative by the logits of q: q - p."""
    p = log_p.exp()
    value = torch.dot(p.flatten(), log_p.sub_(log_q).flatten())
    return value, log_q.exp_().sub_(p)


def _of_top_words(log_q: Tensor, top: TopWords) -> tuple[Tensor, Tensor]:
    """Return the same for the `top` words, where all other words together count as one event."""
    words, p_top, p_tail = top.words_NK.long(), top.log_p_NK.exp(), top.log_tail_N1.exp()
    log_q_tail = _without(log_q, words).logsumexp(1, keepdim=True)
    value = (p_top * (top.log_p_NK - log_q.gather(1, words))).sum()
    value += torch.where(p_tail > 0, p_tail * (top.log_tail_N1 - log_q_tail), 0).sum()
    q = log_q.exp_()
    slope_top = q.gather(1, words) - p_top
    left = torch.where(p_tail > 0, 1 - (top.log_tail_N1 - log_q_tail).exp(), 1)
    return value, q.mul_(left).scatter_(1, words, slope_top)


def _of_labels(log_q: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over rows of -log q of the label, and its derivative by the logits of q; 0 without a label."""
    labels_N1, is_known_N1 = labels_N.clamp_min(0)[:, None], (labels_N >= 0)[:, None]
    value = -(log_q.gather(1, labels_N1) * is_known_N1).sum()
    slope = log_q.exp_()
    slope.scatter_add_(1, labels_N1, slope.new_full(labels_N1.shape, -1.0))
    return value, slope.mul_(is_known_N1)


def _without(log_NV: Tensor, words_NK: Tensor) -> Tensor:
    return log_NV.scatter(1, words_NK, -torch.inf)
