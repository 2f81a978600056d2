"""Costs of runs of layers to the loss, from gradients in the residual stream."""

from math import ceil

import torch
from torch import Tensor

from core.methods.frontier.structured_info import STREAM_TOKENS


class RunCosts:
    """Costs of runs of layers: ½·E[(g_e·(x_e − x_s))²], in nats a token, of those from layer s to before layer e.

    x_l is the residual stream before layer l, x_L behind the last, g_l the gradient in it of the loss of tokens that
    the model draws. Without the run x_s takes the place of x_e: by second order the loss rises by this. Gradients wait
    in main memory, of layers + 1 times so many tokens.
    """

    def __init__(self, layers: int, tokens_NT: Tensor) -> None:
        sequences, length = tokens_NT.shape
        self._stride = max(1, ceil(tokens_NT.numel() / STREAM_TOKENS))  # evenly spaced among all
        # Gradients are those of the mean over a sequence's predictions, and some of the tokens stand for all.
        self._scale = (length - 1) / sequences * length / len(range(0, length, self._stride)) / 2
        self._behind: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in tokens_NT]
        self._sums = torch.zeros(layers, layers + 1, dtype=torch.float64)

    def see(self, place: int, sequence: int, hidden_1TD: Tensor, gradient_1TD: Tensor) -> None:
        """Take in x_l and g_l of a sequence, l = `place`; those of later places come before (`OnStream`)."""
        stream_ND, gradient_ND = (
            each.flatten(0, -2)[:: self._stride].float().cpu() for each in (hidden_1TD, gradient_1TD)
        )
        for end, of_end_ND, product_N in self._behind[sequence]:
            missing_N = product_N - (of_end_ND * stream_ND).sum(dim=-1)  # g_e·(x_e − x_s)
            self._sums[place, end] += missing_N.double().square().sum()
        if place:
            self._behind[sequence].append((place, gradient_ND, (gradient_ND * stream_ND).sum(dim=-1)))
        else:  # no layer is before
            self._behind[sequence].clear()

    def cost(self, first: int, end: int) -> float:
        """Return the cost of the layers from `first` to before `end`."""
        return float(self._sums[first, end]) * self._scale
