"""Objectives of recoveries, per batch: of tokens [batch, time], or of image numbers [batch, 1].

The Kullback-Leibler divergence of whole logits takes a dozen passes over [tokens, vocabulary] in float32, each larger
than a cache. `divergence` computes value and gradient together, for a few rows that fit in the cache, and keeps only
the gradient, in the dtype of the logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.nn import functional

from core.engine.datasets.counted_tokens import plain_ids
from core.engine.datasets.image_set import ImageSet

Loss: TypeAlias = Callable[[nn.Module, Tensor], Tensor]
"""Objective to minimise: a number, or two terms, [2], for the predictions and for the hidden states."""
_IGNORED: Final = -100
"""Label of a token whose prediction does not count."""
_ROWS_BYTES = 2**22
"""Bytes in float32 of the rows that are processed together."""


def next_token_loss(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Return the mean cross-entropy of each token that counts, given those before it, in nats."""
    logits_BTV: Tensor = model(input_ids=plain_ids(tokens_BT), use_cache=False).logits.float()[:, :-1]
    labels_N = tokens_BT[:, 1:].flatten()
    labels_N = labels_N.masked_fill(labels_N < 0, _IGNORED)
    return functional.cross_entropy(logits_BTV.flatten(0, 1), labels_N, ignore_index=_IGNORED)


def labelled_loss(images: ImageSet) -> Loss:
    """Return the mean cross-entropy of the images' labels, in nats."""

    def loss(model: nn.Module, numbers_B1: Tensor) -> Tensor:
        numbers_B = numbers_B1[:, 0].cpu()
        labels_B = images.labels_N[numbers_B].to(numbers_B1.device)
        return functional.cross_entropy(image_logits(model, images, numbers_B, numbers_B1.device), labels_B)

    return loss


def image_logits(model: nn.Module, images: ImageSet, numbers_B: Tensor, device: torch.device) -> Tensor:
    """Return the logits of the images with these numbers, [batch, classes], in float32."""
    logits: Tensor = model(pixel_values=images.batch(numbers_B).to(device)).logits
    return logits.float()


@dataclass(frozen=True)
class Labels:
    """Right class of each row [rows], negative where unknown, and the weight of their loss, between 0 and 1.

    They are the hard targets of Hinton 2015 (arXiv:1503.02531).
    """

    labels_N: Tensor
    weight: float

    @property
    def share(self) -> Tensor:
        """Return the weight of each known label."""
        return self.weight / (self.labels_N >= 0).sum().clamp_min(1)


def divergence(given_NV: Tensor, wanted_NV: Tensor, temperature: float, labels: Labels | None = None) -> Tensor:
    """Return (1 - w) · T² · KL(wanted ‖ given) + w · the cross-entropy of labels, each the mean over rows, in nats.

    Both are logits. Labels of weight w are compared with the given logits at temperature 1.
    """
    with torch.no_grad():
        value, gradient_NV = _value_and_gradient(given_NV, wanted_NV, temperature, labels)
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


def _value_and_gradient(
    given_NV: Tensor, wanted_NV: Tensor, temperature: float, labels: Labels | None
) -> tuple[Tensor, Tensor]:
    gradient_NV = torch.empty_like(given_NV)
    total, total_of_labels = torch.zeros(2, dtype=torch.float64)
    (rows, words), weight = given_NV.shape, labels.weight if labels else 0.0
    label_share = labels.share if labels else 0.0
    size = max(1, _ROWS_BYTES // (4 * words))
    for start in range(0, rows, size):
        end = start + size
        log_q = _softened(given_NV[start:end], temperature)
        value, slope = _of_all_words(log_q, _softened(wanted_NV[start:end], temperature))
        total = total + value
        slope.mul_((1 - weight) * (temperature / rows))
        if labels:
            value, label_slope = _of_labels(_softened(given_NV[start:end], 1), labels.labels_N[start:end])
            total_of_labels = total_of_labels + value
            slope.add_(label_slope.mul_(label_share))
        gradient_NV[start:end] = slope
    total = (1 - weight) * (total * temperature**2 / rows)
    return (total + total_of_labels * label_share).float(), gradient_NV


def _softened(logits_NV: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities at a temperature, in float32."""
    logits_NV = logits_NV.float()
    return functional.log_softmax(logits_NV if temperature == 1 else logits_NV / temperature, dim=-1)


def _of_all_words(log_q: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over rows of KL(p‖q), and its derivative by the logits of q: q - p."""
    p = log_p.exp()
    value = torch.dot(p.flatten(), log_p.sub_(log_q).flatten())
    return value, log_q.exp_().sub_(p)


def _of_labels(log_q: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over rows of -log q of the label, and its derivative by the logits of q; 0 without a label."""
    labels_N1, is_known_N1 = labels_N.clamp_min(0)[:, None], (labels_N >= 0)[:, None]
    value = -(log_q.gather(1, labels_N1) * is_known_N1).sum()
    slope = log_q.exp_()
    slope.scatter_add_(1, labels_N1, slope.new_full(labels_N1.shape, -1.0))
    return value, slope.mul_(is_known_N1)
