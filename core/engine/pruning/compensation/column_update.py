"""Optimal Brain Surgeon column update: the remaining weights change so that a layer's outputs change least."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from core.engine.models.precision import small_products
from core.engine.pruning.grid import GridFit, QuantisedWeight, codes
from core.engine.pruning.masks import LayerTarget, lowest_in_groups, lowest_in_tensor
from secateur_wire.errors import RunFailed

_SUB_BLOCK = 32
_MAXIMUM_DOUBLINGS = 30
_INVERTED_AT_ONCE = 256
"""Largest triangular matrix that is inverted without a split."""


def damped_inverse_factor(hessian_II: Tensor, damping: float, note: Callable[[str], None]) -> tuple[Tensor, Tensor]:
    """Return U, upper triangular with UᵀU = (H + λI)⁻¹, and the mask of dead inputs.

    λ = damping·mean(diag H). H is reversed in both dimensions before its Cholesky factor L is computed: U is then L⁻¹
    reversed, one triangular inverse instead of an inverse and a second factorisation. Raises RunFailed if no damping
    helps.
    """
    reversed_II = hessian_II.flip(0, 1)
    del hessian_II  # matrices of this size are the largest of a job: each is freed as soon as it was read
    lower_II, dead_I = _factorise(reversed_II, damping, note)
    del reversed_II
    inverse_II = _inverse_of_lower(lower_II)
    del lower_II
    inverse_II = inverse_II.flip(0, 1)
    return inverse_II.contiguous(), dead_I.flip(0)


def _inverse_of_lower(lower_II: Tensor) -> Tensor:
    """Return L⁻¹ of a lower triangular L, by its quarters: a third of the operations of LX = I, nearly all in products.

    The lower left quarter of L⁻¹ is −D⁻¹CA⁻¹, with A, C and D the upper left, lower left and lower right ones of L.
    """
    size = len(lower_II)
    half = size // 2
    if size <= _INVERTED_AT_ONCE:
        identity_II = torch.eye(size, dtype=lower_II.dtype, device=lower_II.device)
        solved_II: Tensor = torch.linalg.solve_triangular(lower_II, identity_II, upper=False)
        return solved_II
    inverse_II = torch.zeros_like(lower_II)
    inverse_II[:half, :half] = _inverse_of_lower(lower_II[:half, :half])
    inverse_II[half:, half:] = _inverse_of_lower(lower_II[half:, half:])
    left_II = lower_II[half:, :half] @ inverse_II[:half, :half]
    inverse_II[half:, :half] = (inverse_II[half:, half:] @ left_II).neg_()
    return inverse_II


def damped_cholesky(hessian_II: Tensor, damping: float, note: Callable[[str], None]) -> tuple[Tensor, Tensor]:
    """Return L, lower triangular with LLᵀ = H + λI, and the mask of dead inputs.

    λ = damping·mean(diag H), doubled and noted where the sum cannot be factorised. Raises RunFailed if no damping
    helps.
    """
    return _factorise(hessian_II.clone(), damping, note)


def _factorise(hessian_II: Tensor, damping: float, note: Callable[[str], None]) -> tuple[Tensor, Tensor]:
    """Return the result of `damped_cholesky`; H is changed in place."""
    diagonal_I = hessian_II.diagonal()
    dead_I = diagonal_I <= 0
    diagonal_I[dead_I] = 1
    lambda_ = damping * diagonal_I.mean()
    diagonal_I += lambda_
    for doubling in range(_MAXIMUM_DOUBLINGS):
        lower_II, failed = torch.linalg.cholesky_ex(hessian_II)
        # The diagonal has the squares of all of a row: it is finite if these are. One wait for the device.
        if (torch.isfinite(lower_II.diagonal()).all() & (failed == 0)).item():
            if doubling:
                note(f"Cholesky factorisation needed damping {damping * 2**doubling:g} instead of {damping:g}")
            return lower_II, dead_I
        diagonal_I += lambda_ * 2**doubling
    raise RunFailed(
        "the Hessian of a linear layer cannot be factorised with any damping: the layer's inputs are "
        "infinite or not a number"
    )


class Columns:
    """Linear layers that read one input, pruned and rounded column by column.

    They are stacked and transposed, so that a column is contiguous: `W_IO` has the outputs of all. `weights` are
    [out_features, in_features], float32 or float64. `factor_II` is U of `damped_inverse_factor`. With a `fit`, weights
    that stay are rounded to a grid in the same pass; `scales` are those of each group. `removed_IO` marks pruned ones.

    The error of column j, of removed and of rounded weights alike, is e = (w_j − ŵ_j)/U_jj. It is spread over the later
    columns before these are chosen or rounded: W[:, k] −= e·U[j, k] for k > j.
    """

    def __init__(self, weights: Sequence[Tensor], factor_II: Tensor, fit: GridFit | None = None) -> None:
        self.sizes = [len(weight) for weight in weights]
        self.factor_II, self.fit = factor_II, fit
        self.W_IO = torch.cat([weight.T for weight in weights], dim=1).contiguous()
        self.removed_IO = torch.zeros_like(self.W_IO, dtype=torch.bool)
        self.scales: list[Tensor] = []

    @property
    def weights(self) -> list[Tensor]:
        """The layers' weights, [out_features, in_features] each."""
        return [part.T.contiguous() for part in self.W_IO.split(self.sizes, dim=1)]

    @property
    def quantised(self) -> list[QuantisedWeight]:
        """The layers' weights on the grid."""
        assert self.fit is not None
        stacked = self.W_IO, torch.cat(self.scales), self.removed_IO
        parts = zip(*(each.split(self.sizes, dim=1) for each in stacked), strict=True)
        return [QuantisedWeight.of(part.T, self.fit.grid(scales_GO), removed.T) for part, scales_GO, removed in parts]

    def round(self, *, block_size: int) -> Self:
        """Round with GPTQ's solver (Frantar et al. 2022, algorithm 1); zeros stay zero."""
        self.removed_IO = self.W_IO == 0
        return self._update(lambda *_: None, block_size, _SUB_BLOCK)

    def prune(
        self, targets: Sequence[LayerTarget], dead_I: Tensor, *, block_size: int, sub_block: int = _SUB_BLOCK
    ) -> Self:
        """Prune with SparseGPT's solver (Frantar & Alistarh 2023, algorithm 1), each layer with its own masks.

        Columns are processed in blocks. In a block, score w²/U_jj² picks the lowest share over all rows and the block's
        columns jointly (unstructured), or per row in every m columns on already updated weights (n:m).
        """
        self.W_IO[dead_I] = 0
        columns = len(self.W_IO)
        period = _common_period(targets)
        block_size = max(period, block_size - block_size % period)
        sub_block = max(period, sub_block - sub_block % period)
        quotas = [
            _spread(target.of_tensor(size * columns), columns, block_size)
            for target, size in zip(targets, self.sizes, strict=True)
        ]

        def choose(number: int, column: int, block_BO: Tensor, diagonal_B1: Tensor, removed_BO: Tensor) -> None:
            if period == 1 and column == 0:
                scores = (block_BO / diagonal_B1).square_().split(self.sizes, dim=1)
                for score_BO, mask_BO, quota in zip(scores, removed_BO.split(self.sizes, dim=1), quotas, strict=True):
                    mask_BO.copy_(lowest_in_tensor(score_BO.T, quota[number]).T)
            elif period > 1 and column % period == 0:
                ahead = slice(column, column + period)
                score_PO = (block_BO[ahead] / diagonal_B1[ahead]).square_()
                for score, mask, target in zip(
                    score_PO.split(self.sizes, dim=1), removed_BO[ahead].split(self.sizes, dim=1), targets, strict=True
                ):
                    assert target.pattern.keep is not None
                    mask.copy_(lowest_in_groups(score.T, target.pattern.keep, period).T)

        return self._update(choose, block_size, sub_block)

    @small_products()
    def _update(
        self, choose: Callable[[int, int, Tensor, Tensor, Tensor], None], block_size: int, sub_block: int
    ) -> Self:
        """Set removed weights to zero, round the others where there is a `fit`, and spread each column's error.

        `choose` is called before each column, with the block's number, the column's place in the block, the block, the
        diagonal of its factor, and the block's mask, of which it sets the rows from that column on. A group's scales
        are fitted when its first column is reached.

        The update is lazy on two levels. Within a sub-block of columns it is immediate; one matrix product at the
        sub-block's end updates the rest of the block, and another at the block's end updates the later columns. The
        plain form subtracts the same products e_j·U[j, k] from column k one after another; here they are summed in
        another order, but all before column k is next read.
        """
        W_IO, removed_IO, fit = self.W_IO, self.removed_IO, self.fit
        columns = len(W_IO)
        group = columns if fit is None else fit.group_size or columns
        for number, start in enumerate(range(0, columns, block_size)):
            stop = min(start + block_size, columns)
            U_BB = self.factor_II[start:stop, start:stop]
            block_BO, removed_BO = W_IO[start:stop], removed_IO[start:stop]
            errors_BO = torch.empty_like(block_BO)
            diagonal_B1 = U_BB.diagonal().unsqueeze(1)
            for sub_start in range(0, stop - start, sub_block):
                sub_stop = min(sub_start + sub_block, stop - start)
                for column in range(sub_start, sub_stop):
                    choose(number, column, block_BO, diagonal_B1, removed_BO)
                    row_O, error_O = block_BO[column], errors_BO[column]
                    if fit is None:
                        torch.mul(row_O, removed_BO[column] / U_BB[column, column], out=error_O)
                    else:
                        first = start + column
                        if first % group == 0:
                            kept = W_IO[first : first + group].masked_fill(removed_IO[first : first + group], 0)
                            self.scales.append(fit.scales_of(kept, first))
                        scales_O = self.scales[-1][0]
                        rounded_O = codes(row_O, scales_O, fit.bits).mul_(scales_O)
                        rounded_O.masked_fill_(removed_BO[column], 0)
                        torch.sub(row_O, rounded_O, out=error_O).div_(U_BB[column, column])
                        block_BO[column] = rounded_O
                    block_BO[column + 1 : sub_stop].addr_(U_BB[column, column + 1 : sub_stop], error_O, alpha=-1)
                sub = slice(sub_start, sub_stop)
                block_BO[sub_stop:].addmm_(U_BB[sub, sub_stop:].T, errors_BO[sub], alpha=-1)
            W_IO[stop:].addmm_(self.factor_II[start:stop, stop:].T, errors_BO, alpha=-1)
        W_IO.masked_fill_(removed_IO, 0)
        if fit is None:  # codes alone need the mask: it is freed before the weights are copied
            self.removed_IO = removed_IO.new_empty(0)
        return self


def _common_period(targets: Sequence[LayerTarget]) -> int:
    """Return the m of the layers' n:m pattern, 1 for unstructured; layers of one group share their pattern."""
    periods = {target.pattern.of or 1 for target in targets}
    assert len(periods) == 1
    return periods.pop()


def _spread(total: int, columns: int, block_size: int) -> list[int]:
    """Split a tensor's count over its column blocks in proportion to their width, exactly."""
    edges = [*range(0, columns, block_size), columns]
    before = [round(total * edge / columns) for edge in edges]
    return [after - earlier for earlier, after in pairwise(before)]
