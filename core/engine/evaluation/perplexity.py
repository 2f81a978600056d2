"""Perplexity over non-overlapping windows: exp of the mean negative log-likelihood of all tokens except each first.

Of conversations only the tokens that count are predicted (`core.engine.datasets.counted_tokens`).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.datasets.counted_tokens import predicted_places
from core.engine.datasets.window_losses import WindowSpans
from core.engine.models.streamed import StreamedModel

_CHUNK = 256


@dataclass(frozen=True)
class MeasuredPerplexity:
    """Perplexity of a model on a text, with the mean loss of each window in nats; no losses where one is not finite.

    Where windows have different numbers of tokens that count, a window's loss is the sum over its tokens, divided by
    the mean number of a window: so the mean over the windows is that over all tokens. `divergence` is the mean of
    KL(reference‖model) over the predicted tokens in nats; None without a reference.
    """

    value: float
    window_losses: tuple[float, ...] = ()
    divergence: float | None = None


@dataclass(frozen=True)
class ReferenceStream:
    """Model that another is compared with, and its pairs of tokens and hidden states, batch by batch."""

    streamed: StreamedModel
    batches: Iterable[tuple[Tensor, Tensor]]


def perplexity(streamed: StreamedModel, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return perplexity from pairs of tokens [batch, time] and the last block's output [batch, time, hidden_size]."""
    return measure_perplexity(streamed, batches).value


@torch.inference_mode()
def measure_perplexity(
    streamed: StreamedModel,
    batches: Iterable[tuple[Tensor, Tensor]],
    on_window: Callable[[], None] = lambda: None,
    reference: ReferenceStream | None = None,
    spans: WindowSpans | None = None,
) -> MeasuredPerplexity:
    """Return perplexity, and the loss of each window, from pairs of tokens [batch, time] and hidden states.

    Hidden states are the last block's output [batch, time, hidden_size]. Logits are computed for one window and a few
    positions at a time, never for all. `on_window` is called after each window. The `reference` has the same batches of
    tokens; its head is applied once more for each of them. Without `spans` all tokens of a window but the first are
    predicted.
    """
    total, divergence, count = 0.0, 0.0, 0
    losses: list[float] = []
    references = iter(()) if reference is None else iter(reference.batches)
    for tokens_BT, hidden_BTD in batches:
        _, reference_BTD = next(references, (None, None))
        for window in range(len(tokens_BT)):
            tokens_1T, hidden_1TD = tokens_BT[window : window + 1], streamed.sequences_of(hidden_BTD, window, 1)
            predicted_P = predicted_places(tokens_1T[0], None if spans is None else spans.spans[len(losses)])
            targets_T = tokens_1T[0, 1:].to(streamed.device)
            of_window = 0.0
            for positions in predicted_P.split(_CHUNK):
                logits_PV = streamed.logits(tokens_1T, hidden_1TD, positions)[0].float()
                loss = _loss(logits_PV, targets_T[positions])
                total += loss
                of_window += loss
                if reference is not None and reference_BTD is not None:
                    known_1TD = reference.streamed.sequences_of(reference_BTD, window, 1)
                    known_PV = reference.streamed.logits(tokens_1T, known_1TD, positions)[0].float()
                    divergence += _divergence(known_PV, logits_PV)
            count += len(predicted_P) if spans is None else spans.counted[len(losses)]
            losses.append(of_window)
            on_window()
    losses = [loss / (count / len(losses)) for loss in losses]
    are_finite = all(map(math.isfinite, losses))
    return MeasuredPerplexity(
        math.exp(min(total / count, 700.0)),
        tuple(losses) if are_finite else (),
        None if reference is None or not math.isfinite(divergence) else divergence / count,
    )


def _loss(logits_PV: Tensor, targets_P: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits_PV, targets_P, reduction="sum").double())


def _divergence(reference_PV: Tensor, logits_PV: Tensor) -> float:
    """Return the sum of KL(reference‖other) over positions."""
    predicted_PV, wanted_PV = logits_PV.log_softmax(-1), reference_PV.log_softmax(-1)
    divergence = torch.nn.functional.kl_div(predicted_PV, wanted_PV, reduction="sum", log_target=True)
    return float(divergence.double())
