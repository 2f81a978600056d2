"""Choices of tokens from a model's logits: drawn, or the likeliest."""

import torch
from torch import Tensor

from secateur_wire.errors import NotFiniteWeights

_GROUP = 512
"""Tokens whose probabilities are summed first: a draw finds its group, and then its token within the group."""
_LOGITS_AT_ONCE = 2**20
"""Most logits of one pass: what it computes from them stays in a processor's cache."""


def draw_tokens(logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Return a token of each row, drawn from softmax(logits), as int64 [rows] in main memory.

    `uniform_B` are independent draws from [0, 1) in float64. A token is the first at which the sum of the probabilities
    up to it exceeds the row's draw. Weights are exp(logit - largest) in float32; sums of groups and of tokens are in
    float64, so that rare tokens at the end of a large vocabulary keep their probability. Nothing is sorted.

    Raises NotFiniteWeights for logits that are not finite.
    """
    rows = max(1, _LOGITS_AT_ONCE // logits_BV.shape[1])
    parts = zip(logits_BV.split(rows), uniform_B.to(logits_BV.device).split(rows), strict=True)
    return torch.cat([_draw(logits.float(), uniform) for logits, uniform in parts]).cpu()


def _draw(logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
    highest_B = _highest(logits_BV)
    weights_BV = (logits_BV - highest_B[:, None]).exp_()
    missing = -weights_BV.shape[1] % _GROUP
    weights_BGK = torch.nn.functional.pad(weights_BV, (0, missing)).unflatten(1, (-1, _GROUP))
    sums_BG = weights_BGK.sum(2).double()
    group_B, within_B = _pick(sums_BG, uniform_B)
    token_B, _ = _pick(weights_BGK[torch.arange(len(group_B)), group_B].double(), within_B)
    return group_B * _GROUP + token_B


def likeliest_tokens(logits_BV: Tensor) -> Tensor:
    """Return the likeliest token of each row, as int64 [rows] in main memory; of equal ones the first.

    Raises NotFiniteWeights for logits that are not finite.
    """
    _highest(logits_BV)
    return logits_BV.argmax(dim=1).cpu()


def _highest(logits_BV: Tensor) -> Tensor:
    """Return the largest logit of each row; raises NotFiniteWeights."""
    lowest_B, highest_B = logits_BV.aminmax(dim=1)
    if not (lowest_B.isfinite() & highest_B.isfinite()).all():
        raise NotFiniteWeights("the model's outputs are not finite numbers: it cannot write text", param="model")
    return highest_B


def _pick(weights_BK: Tensor, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each row the index in whose share of the total weight the draw falls, and the place in it, 0 to 1."""
    ends_BK = weights_BK.cumsum(1)
    total_B1 = ends_BK[:, -1:]
    place_B1 = uniform_B[:, None] * total_B1
    last_B = (ends_BK < total_B1).sum(1)  # rounding may put a draw at the total itself
    index_B1 = (ends_BK <= place_B1).sum(1).minimum(last_B)[:, None]
    weight_B1 = weights_BK.gather(1, index_B1)
    within_B1 = (place_B1 - (ends_BK.gather(1, index_B1) - weight_B1)) / weight_B1
    return index_B1[:, 0], within_B1[:, 0].clamp(0, 1)
