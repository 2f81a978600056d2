"""Statistics of a linear layer's input over the calibration tokens, gathered by micro-batches."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from enum import Enum

import torch
from torch import Tensor

from core.engine.datasets.counted_tokens import rows_at
from core.engine.models.precision import bfloat16_matmul

_SQUARED_AT_ONCE = 2**16
"""Number of inputs that are squared at once: their copy fits a processor's cache."""
_UNSEEN_SHARE = 1e-3
"""Mean square of features that no token had, as a share of the others' mean."""


class Statistic(Enum):
    """Statistics of its inputs that a method reads, each including those before: none, feature norms, XᵀX."""

    NONE = 0
    NORMS = 1
    GRAM = 2


class InputStatistic:
    """Statistics of the input X [tokens, in_features] of one group of linear layers.

    `squares_I` is Σ x² per feature, `gram_II` is XᵀX. `sample_NI` keeps a few rows of X, evenly spaced, to measure
    reconstruction errors where there is no XᵀX. Where the dense model's inputs D to the same layers are given too,
    `cross_II` is DᵀX; where the layer's target output Y [tokens, out_features] is given instead, `target_OI` is YᵀX.
    Tokens after the first `fitted_tokens` count only in the statistic `holdout`.
    """

    def __init__(self, level: Statistic, *, sample_stride: int, fitted_tokens: int | None = None) -> None:
        self.level = level
        self.sample_stride = sample_stride
        self.fitted_tokens = fitted_tokens
        self.holdout = None if fitted_tokens is None else InputStatistic(level, sample_stride=sample_stride)
        self.tokens = 0
        self._cross_II: Tensor | None = None
        self.target_OI: Tensor | None = None
        self._squares_I: Tensor | None = None
        self._gram_II: Tensor | None = None
        self._mirrored = False
        self._sample: list[Tensor] = []

    def update(
        self,
        inputs: Tensor,
        dense_inputs: Tensor | None = None,
        target: Tensor | None = None,
        places_N: Tensor | None = None,
    ) -> None:
        """Add a micro-batch of inputs, [..., in_features].

        For the same tokens, either the dense model's inputs, which may be wider, or the target outputs [...,
        out_features] may be given. Only the tokens at `places_N` count; None: all.
        """
        assert not self._mirrored
        X_NI = rows_at(inputs.detach(), places_N)
        dense_NI, target_NO = (
            None if each is None else rows_at(each.detach(), places_N) for each in (dense_inputs, target)
        )
        if self.holdout is not None:
            assert self.fitted_tokens is not None
            left = self.fitted_tokens - self.tokens
            if len(X_NI) > left:
                others = (None if each is None else each[left:] for each in (dense_NI, target_NO))
                self.holdout.update(X_NI[left:], *others)
            X_NI = X_NI[:left]
            dense_NI, target_NO = (None if each is None else each[:left] for each in (dense_NI, target_NO))
            if not len(X_NI):
                return
        self._keep_sample(X_NI)
        self.tokens += X_NI.shape[0]
        if self.level is Statistic.NONE:
            return
        # exact where factors are rounded to bfloat16; the target may lose a few bits
        is_exact = X_NI.dtype is torch.bfloat16
        if self.level is Statistic.GRAM:
            X_NI = X_NI.float()
            if self._gram_II is None:
                self._gram_II = X_NI.new_zeros(X_NI.shape[1], X_NI.shape[1])
            with bfloat16_matmul(X_NI.device) if is_exact else nullcontext():
                add_gram(self._gram_II, X_NI)
                if dense_NI is not None:
                    self._cross_II = _with_product(self._cross_II, dense_NI, X_NI)
                if target_NO is not None:
                    self.target_OI = _with_product(self.target_OI, target_NO, X_NI)
        else:
            squares_I = _sums_of_squares(X_NI)
            self._squares_I = squares_I if self._squares_I is None else self._squares_I + squares_I

    def fill_unseen_inputs(self) -> None:
        """Give features that were zero in all tokens a small share of the others' mean square.

        A few tokens do not prove that these features are always zero. Weights that read them are thus ranked by size,
        instead of being removed first.
        """
        for values_I in (self._squares_I, None if self._gram_II is None else self._gram_II.diagonal()):
            if values_I is not None and bool((values_I > 0).any()):
                unseen_I = values_I <= 0
                values_I[unseen_I] = _UNSEEN_SHARE * values_I[~unseen_I].mean()

    def _keep_sample(self, X_NI: Tensor) -> None:
        if self.level is Statistic.GRAM:
            return
        first = -self.tokens % self.sample_stride
        # a view would keep X in memory
        self._sample.append(X_NI[first :: self.sample_stride].to(torch.float32, copy=True))

    @property
    def norms_I(self) -> Tensor:
        """‖X_j‖₂ of each input feature j over all tokens."""
        if self._squares_I is not None:
            return self._squares_I.sqrt()
        return self.gram_II.diagonal().clamp(min=0).sqrt()

    @property
    def gram_II(self) -> Tensor:
        """XᵀX, symmetric, [in_features, in_features]; after the first read no more inputs can be added."""
        assert self._gram_II is not None
        if not self._mirrored:
            upper = self._gram_II.triu_()
            upper += upper.triu(1).T
            self._mirrored = True
        return self._gram_II

    @property
    def cross_II(self) -> Tensor:
        """DᵀX, [in_features of the dense layers, in_features], D the dense model's inputs."""
        assert self._cross_II is not None
        return self._cross_II

    def energy(self, weight_OI: Tensor) -> Tensor:
        """Return ‖WXᵀ‖² over all tokens, from XᵀX, or else over the sample: a float64 on the weights' device."""
        if self.level is Statistic.GRAM:
            return ((weight_OI @ self.gram_II) * weight_OI).sum(dtype=torch.float64)
        return (weight_OI @ torch.cat(self._sample).T).square().sum(dtype=torch.float64)


def relative_error(total: float, lost: float) -> float:
    """Return ‖(W − Ŵ)Xᵀ‖ / ‖WXᵀ‖ from the energies of W and of W − Ŵ."""
    return math.sqrt(max(lost, 0.0) / total) if total > 0 else 0.0


def _sums_of_squares(X_NI: Tensor) -> Tensor:
    """Return Σ x² of each input in float32, [inputs], some rows at a time, so that no second X is in memory.

    On a CPU this is many times faster than a norm along the tokens.
    """
    rows = max(1, _SQUARED_AT_ONCE // X_NI.shape[1])
    sums_I = X_NI.new_zeros(X_NI.shape[1], dtype=torch.float32)
    for X_RI in X_NI.split(rows):
        sums_I += X_RI.to(torch.float32, copy=True).square_().sum(dim=0)
    return sums_I


def _with_product(total: Tensor | None, left_N: Tensor, right_N: Tensor) -> Tensor:
    """Add leftᵀ·right to `total` and return it; None stands for zeros."""
    if total is None:
        total = right_N.new_zeros(left_N.shape[1], right_N.shape[1])
    return total.addmm_(left_N.to(right_N.dtype).T, right_N)


def add_gram(gram_II: Tensor, X_NI: Tensor) -> None:
    """Add XᵀX to the upper triangle of `gram_II`, in block rows, so that little of the lower one is computed."""
    width = X_NI.shape[1]
    tile = max(128, width // 8)
    for start in range(0, width, tile):
        stop = start + tile
        gram_II[start:stop, start:].addmm_(X_NI[:, start:stop].T, X_NI[:, start:])


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
