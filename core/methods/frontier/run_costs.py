"""Costs of dropping runs of layers, from gradients of the loss in the residual stream."""

from math import ceil

import torch
from torch import Tensor

from core.engine.datasets.counted_tokens import mean_predictions
from core.methods.descriptions.frontier import STREAM_TOKENS


class RunCosts:
    """Costs of runs of layers, in nats per token: ½·E[(g_e·(x_e − x_s))²] for the layers s to e − 1.

    x_l is the residual stream before layer l, and x_L the stream after the last layer. g_l is the gradient, in x_l, of
    the loss on tokens drawn from the model itself. Without the run, x_s takes the place of x_e, and the loss rises by
    this cost to second order. Main memory holds one gradient per sampled token and layer.
    """

    def __init__(self, layers: int, tokens_NT: Tensor) -> None:
        sequences, length = tokens_NT.shape
        self._stride = max(1, ceil(tokens_NT.numel() / STREAM_TOKENS))  # evenly spaced among all
        # The loss is a mean over the predictions of a sequence, and the sampled tokens represent all tokens.
        self._scale = mean_predictions(tokens_NT) / sequences * length / len(range(0, length, self._stride)) / 2
        self._behind: list[list[tuple[int, Tensor, Tensor]]] = [[] for _ in tokens_NT]
        self._sums = torch.zeros(layers, layers + 1, dtype=torch.float64)

    def see(self, place: int, sequence: int, hidden_1TD: Tensor, gradient_1TD: Tensor) -> None:
        """Accumulate x_l and g_l of a sequence, l = `place`; places arrive in descending order, as in `OnStream`."""
        stream_ND, gradient_ND = (
            each.flatten(0, -2)[:: self._stride].float().cpu() for each in (hidden_1TD, gradient_1TD)
        )
        for end, of_end_ND, product_N in self._behind[sequence]:
            missing_N = product_N - (of_end_ND * stream_ND).sum(dim=-1)  # g_e·(x_e − x_s)
            self._sums[place, end] += missing_N.double().square().sum()
        if place:
            self._behind[sequence].append((place, gradient_ND, (gradient_ND * stream_ND).sum(dim=-1)))
        else:  # the first layer is the last to arrive: the sequence is complete
            self._behind[sequence].clear()

    def cost(self, first: int, end: int) -> float:
        """Return the cost of dropping the layers `first` to `end` − 1."""
        return float(self._sums[first, end]) * self._scale
