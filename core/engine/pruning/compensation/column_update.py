"""Optimal Brain Surgeon column update: the remaining weights change so that a layer's outputs change least."""

from collections.abc import Callable, Sequence
from itertools import pairwise

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


@small_products()
def prune_columns(
    weights: Sequence[Tensor],
    targets: Sequence[LayerTarget],
    factor_II: Tensor,
    dead_I: Tensor,
    *,
    block_size: int,
    sub_block: int = _SUB_BLOCK,
) -> list[Tensor]:
    """Prune linear layers that share one input with SparseGPT's solver (Frantar & Alistarh 2023, algorithm 1).

    `weights` are [out_features, in_features], float32 or float64, `factor_II` is U of `damped_inverse_factor`. Columns
    are processed in blocks. In a block, score w²/U_jj² picks the lowest share over all rows and the block's columns
    jointly (unstructured), or per row in every m columns on already updated weights (n:m). For each column j the error
    e = w_j/U_jj of the removed weights is spread: W[:, k] −= e·U[j, k] for k > j. The layers are stacked, each with its
    own masks.
    """
    W_IO = _stacked(weights)
    _prune(W_IO, weights, targets, factor_II, dead_I, block_size=block_size, sub_block=sub_block)
    return [part.T.contiguous() for part in W_IO.split([len(weight) for weight in weights], dim=1)]


@small_products()
def prune_and_round_columns(
    weights: Sequence[Tensor],
    targets: Sequence[LayerTarget],
    factor_II: Tensor,
    dead_I: Tensor,
    fit: GridFit,
    *,
    block_size: int,
) -> list[QuantisedWeight]:
    """Prune as `prune_columns` does, and round the other weights to a grid in the same pass over the columns.

    The error of column j is e = (w_j − ŵ_j)/U_jj, of removed and of rounded weights alike (section 3.5).
    """
    W_IO = _stacked(weights)
    removed_IO, scales = _prune(W_IO, weights, targets, factor_II, dead_I, block_size=block_size, fit=fit)
    return _rounded(W_IO, removed_IO, scales, weights, fit)


@small_products()
def round_columns(
    weights: Sequence[Tensor], factor_II: Tensor, fit: GridFit, *, block_size: int
) -> list[QuantisedWeight]:
    """Round linear layers that share one input to a grid with GPTQ's solver (Frantar et al. 2022, algorithm 1).

    `weights` and `factor_II` are as in `prune_columns`. Each column's error e = (w_j − ŵ_j)/U_jj is spread over the
    later columns, before these are rounded. Zeros stay zero.
    """
    W_IO = _stacked(weights)
    zeros_IO = W_IO == 0
    scales = _update_columns(W_IO, zeros_IO, factor_II, lambda *_: None, block_size=block_size, fit=fit)
    return _rounded(W_IO, zeros_IO, scales, weights, fit)


def _prune(
    W_IO: Tensor,
    weights: Sequence[Tensor],
    targets: Sequence[LayerTarget],
    factor_II: Tensor,
    dead_I: Tensor,
    *,
    block_size: int,
    sub_block: int = _SUB_BLOCK,
    fit: GridFit | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Prune the stacked weights in place; return the mask of what was removed, and the scales of each group."""
    W_IO[dead_I] = 0
    sizes = [len(weight) for weight in weights]
    period = _common_period(targets)
    block_size = max(period, block_size - block_size % period)
    sub_block = max(period, sub_block - sub_block % period)
    quotas = [
        _spread(target.of_tensor(weight.numel()), len(W_IO), block_size)
        for target, weight in zip(targets, weights, strict=True)
    ]

    def choose(number: int, column: int, block_BO: Tensor, diagonal_B1: Tensor, removed_BO: Tensor) -> None:
        if period == 1 and column == 0:
            scores = (block_BO / diagonal_B1).square_().split(sizes, dim=1)
            for score_BO, mask_BO, quota in zip(scores, removed_BO.split(sizes, dim=1), quotas, strict=True):
                mask_BO.copy_(lowest_in_tensor(score_BO.T, quota[number]).T)
        elif period > 1 and column % period == 0:
            ahead = slice(column, column + period)
            score_PO = (block_BO[ahead] / diagonal_B1[ahead]).square_()
            for score, mask, target in zip(
                score_PO.split(sizes, dim=1), removed_BO[ahead].split(sizes, dim=1), targets, strict=True
            ):
                assert target.pattern.keep is not None
                mask.copy_(lowest_in_groups(score.T, target.pattern.keep, period).T)

    removed_IO = torch.zeros_like(W_IO, dtype=torch.bool)
    scales = _update_columns(W_IO, removed_IO, factor_II, choose, block_size=block_size, sub_block=sub_block, fit=fit)
    return removed_IO, scales


def _stacked(weights: Sequence[Tensor]) -> Tensor:
    """Return a copy of the layers side by side and transposed, so that a column is contiguous."""
    return torch.cat([weight.T for weight in weights], dim=1).contiguous()


def _rounded(
    W_IO: Tensor, pruned_IO: Tensor, scales: Sequence[Tensor], weights: Sequence[Tensor], fit: GridFit
) -> list[QuantisedWeight]:
    """Return the layers of stacked weights on a grid, with the scales of each group."""
    sizes = [len(weight) for weight in weights]
    parts = zip(*(each.split(sizes, dim=1) for each in (W_IO, torch.cat(list(scales)), pruned_IO)), strict=True)
    return [QuantisedWeight.of(part_IO.T, fit.grid(scales_GO), pruned.T) for part_IO, scales_GO, pruned in parts]


def _update_columns(
    W_IO: Tensor,
    removed_IO: Tensor,
    factor_II: Tensor,
    choose: Callable[[int, int, Tensor, Tensor, Tensor], None],
    *,
    block_size: int,
    sub_block: int = _SUB_BLOCK,
    fit: GridFit | None,
) -> list[Tensor]:
    """Set removed weights to zero, round the others where there is a `fit`, and spread each column's error.

    `choose` is called before each column, with the block's number, the column's place in the block, the block, the
    diagonal of its factor, and the block's mask, of which it sets the rows from that column on. A group's scales are
    fitted when its first column is reached; they are returned.

    The update is lazy on two levels. Within a sub-block of columns it is immediate; one matrix product at the
    sub-block's end updates the rest of the block, and another at the block's end updates the later columns. The plain
    form subtracts the same products e_j·U[j, k] from column k one after another; here they are summed in another order,
    but all before column k is next read.
    """
    columns = len(W_IO)
    group = columns if fit is None else fit.group_size or columns
    scales: list[Tensor] = []
    for number, start in enumerate(range(0, columns, block_size)):
        stop = min(start + block_size, columns)
        U_BB = factor_II[start:stop, start:stop]
        block_BO, removed_BO = W_IO[start:stop], removed_IO[start:stop]
        errors_BO = torch.empty_like(block_BO)
        diagonal_B1 = U_BB.diagonal().unsqueeze(1)
        for sub_start in range(0, stop - start, sub_block):
            sub_stop = min(sub_start + sub_block, stop - start)
            for column in range(sub_start, sub_stop):
                choose(number, column, block_BO, diagonal_B1, removed_BO)
                if fit is None:
                    torch.mul(block_BO[column], removed_BO[column] / U_BB[column, column], out=errors_BO[column])
                else:
                    first = start + column
                    if first % group == 0:
                        kept = W_IO[first : first + group].masked_fill(removed_IO[first : first + group], 0)
                        scales.append(fit.scales_of(kept, first))
                    scales_O = scales[-1][0]
                    rounded_O = codes(block_BO[column], scales_O, fit.bits).mul_(scales_O)
                    rounded_O.masked_fill_(removed_BO[column], 0)
                    torch.sub(block_BO[column], rounded_O, out=errors_BO[column]).div_(U_BB[column, column])
                    block_BO[column] = rounded_O
                block_BO[column + 1 : sub_stop].addr_(U_BB[column, column + 1 : sub_stop], errors_BO[column], alpha=-1)
            sub = slice(sub_start, sub_stop)
            block_BO[sub_stop:].addmm_(U_BB[sub, sub_stop:].T, errors_BO[sub], alpha=-1)
        W_IO[stop:].addmm_(factor_II[start:stop, stop:].T, errors_BO, alpha=-1)
    W_IO.masked_fill_(removed_IO, 0)
    return scales


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
