"""Directions of the residual stream between decoder layers: how little runs of layers turn it."""

import math

import torch
from torch import Tensor

from core.engine.pruning.streams.block_gradients import forward_blocks
from core.engine.pruning.units.context import UnitSelectionContext

_COMPARED_TOKENS = 1024
"""Tokens whose directions are kept, at most; they are evenly spaced among all."""


class StreamDirections:
    """Directions of x_l, the residual stream before layer l, x_L behind the last, of some of the tokens [N, T] given.

    One block has its weights at a time; directions are kept in main memory, of layers + 1 times so many tokens.
    """

    def __init__(self, context: UnitSelectionContext, tokens_NT: Tensor) -> None:
        stride = max(1, math.ceil(tokens_NT.numel() / _COMPARED_TOKENS))
        seen: list[list[Tensor]] = [[] for _ in range(context.layers + 1)]

        def keep(index: int, batch: int, hidden_BTD: Tensor) -> None:
            flat = hidden_BTD.flatten(0, 1)[::stride].float().cpu()
            seen[index].append(flat / flat.norm(dim=-1, keepdim=True))

        batches = list(tokens_NT.split(context.micro_batch))
        for batch, hidden in enumerate(forward_blocks(context.streamed, batches, context.forward_dtype, keep)):
            keep(context.layers, batch, hidden)
        self._directions = [torch.cat(each) for each in seen]

    def cosine(self, first: int, end: int) -> Tensor:
        """Return the cosine of each token's x_first and x_end: [tokens]."""
        return (self._directions[first] * self._directions[end]).sum(-1).clamp(-1, 1)

    def angle(self, first: int, end: int) -> float:
        """Return the mean angle of x_first and x_end, as a share of π (Gromov 2024, arXiv:2403.17887)."""
        return float(self.cosine(first, end).arccos().mean()) / math.pi

    def influence(self, first: int, end: int) -> float:
        """Return the influence of the layers from `first` to before `end`: the mean of 1 − cos(x_first, x_end).

        Of a single layer it is ShortGPT's block influence (Men 2024, arXiv:2403.03853).
        """
        return float(1 - self.cosine(first, end).mean())
