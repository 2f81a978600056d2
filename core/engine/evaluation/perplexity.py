"""Perplexity over non-overlapping windows: exp of the mean negative log-likelihood of all tokens except each first."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.models.streamed import StreamedModel

_CHUNK = 256


@dataclass(frozen=True)
class MeasuredPerplexity:
    """Perplexity of a model on a text, with the mean loss of each window in nats; no losses where one is not finite."""

    value: float
    window_losses: tuple[float, ...] = ()


def perplexity(streamed: StreamedModel, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return perplexity from pairs of tokens [batch, time] and the last block's output [batch, time, hidden_size]."""
    return measure_perplexity(streamed, batches).value


@torch.inference_mode()
def measure_perplexity(
    streamed: StreamedModel,
    batches: Iterable[tuple[Tensor, Tensor]],
    on_window: Callable[[], None] = lambda: None,
) -> MeasuredPerplexity:
    """Return perplexity, and the loss of each window, from pairs of tokens [batch, time] and hidden states.

    Hidden states are the last block's output [batch, time, hidden_size]. Logits are computed for one window and a few
    positions at a time, never for all. `on_window` is called after each window.
    """
    total, count = 0.0, 0
    losses: list[float] = []
    for tokens_BT, hidden_BTD in batches:
        for window in range(len(tokens_BT)):
            tokens_1T, hidden_1TD = tokens_BT[window : window + 1], streamed.sequences_of(hidden_BTD, window, 1)
            targets_T = tokens_1T[0, 1:].to(streamed.device)
            of_window = 0.0
            for positions in torch.arange(len(targets_T)).split(_CHUNK):
                loss = _loss(streamed.logits(tokens_1T, hidden_1TD, positions)[0].float(), targets_T[positions])
                total += loss
                of_window += loss
            count += len(targets_T)
            losses.append(of_window / len(targets_T))
            on_window()
    are_finite = all(map(math.isfinite, losses))
    return MeasuredPerplexity(math.exp(min(total / count, 700.0)), tuple(losses) if are_finite else ())


def _loss(logits_PV: Tensor, targets_P: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits_PV, targets_P, reduction="sum").double())
