"""Perplexity over non-overlapping windows: exp of the mean negative log-likelihood of all tokens but each first."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from core.engine.models.streamed import StreamedModel

_CHUNK = 256


@torch.inference_mode()
def perplexity(streamed: StreamedModel, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Compute perplexity from pairs of tokens [batch, time] and the last block's output [batch, time, hidden_size].

    Logits are computed for one window and a few positions at a time, never for all.
    """
    total, count = 0.0, 0
    for tokens_BT, hidden_BTD in batches:
        for window in range(len(tokens_BT)):
            tokens_1T, hidden_1TD = tokens_BT[window : window + 1], streamed.sequences_of(hidden_BTD, window, 1)
            targets_T = tokens_1T[0, 1:].to(streamed.device)
            for positions in torch.arange(len(targets_T)).split(_CHUNK):
                logits_PV = streamed.logits(tokens_1T, hidden_1TD, positions)[0].float()
                loss = torch.nn.functional.cross_entropy(logits_PV, targets_T[positions], reduction="sum")
                total += float(loss.double())
            count += len(targets_T)
    return math.exp(min(total / count, 700.0))
