"""Mean and variance of a linear layer's inputs over the calibration tokens, gathered by micro-batches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.engine.datasets.counted_tokens import rows_at


class InputMoments:
    """Mean and variance of each feature of an input X [tokens, in_features].

    Micro-batches are merged by their means and their sums of squares about them (Chan, Golub, LeVeque 1983). All but
    the inputs is in float64, so that nothing cancels where a mean is large relative to its variance.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._mean_I: Tensor | None = None
        self._squares_I: Tensor | None = None

    def update(self, inputs: Tensor, places_N: Tensor | None = None) -> None:
        """Add a micro-batch of inputs, [..., in_features]. Only the tokens at `places_N` count; None: all."""
        X_NI = rows_at(inputs.detach(), places_N).float()
        tokens = len(X_NI)
        if not tokens:
            return
        rounded_I = X_NI.mean(0)
        X_NI = X_NI - rounded_I
        rest_I = X_NI.mean(0, dtype=torch.float64)
        mean_I = rounded_I.double() + rest_I
        squares_I = X_NI.square_().sum(0, dtype=torch.float64) - tokens * rest_I.square()
        if self._mean_I is None or self._squares_I is None:
            self._mean_I, self._squares_I = mean_I, squares_I
        else:
            shift_I, share = mean_I - self._mean_I, tokens / (self.tokens + tokens)
            self._mean_I += shift_I * share
            self._squares_I += squares_I + shift_I.square() * (self.tokens * share)
        self.tokens += tokens

    def add_zeros(self, tokens: int) -> None:
        """Add `tokens` tokens with zero inputs, after other tokens."""
        if tokens:
            share = tokens / (self.tokens + tokens)
            self._squares_I = self.squares_I + self.mean_I.square() * (self.tokens * share)
            self._mean_I = self.mean_I * (1 - share)
            self.tokens += tokens

    @property
    def squares_I(self) -> Tensor:
        """Sum of the squares of each input feature about its mean, in float64."""
        assert self._squares_I is not None
        return self._squares_I

    @property
    def mean_I(self) -> Tensor:
        assert self._mean_I is not None
        return self._mean_I

    @property
    def variance_I(self) -> Tensor:
        """Sample variance of each input feature, in float64; 0 for a single token."""
        return self.squares_I.clamp(min=0) / max(self.tokens - 1, 1)

    @property
    def mean_square_I(self) -> Tensor:
        """Mean of each input feature's square, in float64."""
        return self.squares_I.clamp(min=0) / self.tokens + self.mean_I.square()


class StackedMoments:
    """Means and variances of the inputs of each expert's last matrix: [experts, features] each."""

    def __init__(self, experts: Sequence[InputMoments]) -> None:
        self.mean_I = torch.stack([each.mean_I for each in experts])
        self.variance_I = torch.stack([each.variance_I for each in experts])
        self.mean_square_I = torch.stack([each.mean_square_I for each in experts])
