"""Optimal Brain Surgeon (Hassibi & Stork 1993): delete the cheapest weight, update all others, and repeat.

This module is mathematics only. Rows are problems that share one Hessian.

Deleting w_q costs L_q = w_q² / (2 [H⁻¹]_qq) on the quadratic with Hessian H, if the others move by δw = −(w_q /
[H⁻¹]_qq) · H⁻¹ e_q (eq. 5). The inverse of H without row and column q is then the Schur complement H⁻¹ − c cᵀ / c_q, c
= H⁻¹ e_q, without row and column q. Repeating this is the Cholesky factorisation of H⁻¹ with the cheapest weight as
pivot: with u = c/√c_q, the complement after t deletions is H⁻¹ − UᵀU, where U has the t rows u. The algorithm reads
only its diagonal and the pivot's column, and never writes to H⁻¹. So all rows share one H⁻¹, and each row has its own
U.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.device_kinds import device_kind
from core.engine.options.patterns import UNSTRUCTURED, Pattern


@dataclass(frozen=True)
class OBSUpdate:
    """Weights after deletions, and the cost of the deletions.

    `deleted_RP` is True where a weight was deleted, before or now. `increases_RT` is L_q of each row's deletions in
    order, and 0 after the row's last deletion.
    """

    weights_RP: Tensor
    deleted_RP: Tensor
    increases_RT: Tensor


def inverse_hessian(rows: Iterable[Tensor], size: int, *, alpha: float, samples: int) -> Tensor:
    """Return (αI + 1/samples · Σ v vᵀ)⁻¹ over all rows v of `rows`, [vectors, P] each: float64 [P, P].

    The result is on the device of the rows. The recursion starts from α⁻¹I, as in Hassibi & Stork. They add one vector
    at a time (Sherman–Morrison). This function adds a block V of vectors: H⁻¹ − H⁻¹Vᵀ (samples·I + V H⁻¹ Vᵀ)⁻¹ V H⁻¹.
    The result after each block is the same.
    """
    inverse_PP: Tensor | None = None
    for V in rows:
        V_BP = V.double()
        if inverse_PP is None:
            inverse_PP = torch.eye(size, dtype=torch.float64, device=V.device).div_(alpha)
        gain_BP = V_BP @ inverse_PP
        middle_BB = gain_BP @ V_BP.T
        middle_BB.diagonal().add_(samples)
        lower_BB = torch.linalg.cholesky(middle_BB)
        half_BP = torch.linalg.solve_triangular(lower_BB, gain_BP, upper=False)
        inverse_PP.addmm_(half_BP.T, half_BP, alpha=-1)
    assert inverse_PP is not None
    return inverse_PP


def obs_prune(
    weights_RP: Tensor,
    inverse_PP: Tensor,
    counts_R: Tensor,
    *,
    deleted_RP: Tensor | None = None,
    prunable: int | None = None,
    pattern: Pattern = UNSTRUCTURED,
) -> OBSUpdate:
    """Delete `counts_R` weights of each row, the cheapest first, by the exact update.

    `deleted_RP` marks weights that are already deleted: they are zero and not part of H. Only the first `prunable`
    columns may be deleted (None: all); the others are still updated. With an n:m pattern, no group of m consecutive
    weights loses more than m − n. The computation is in the dtype of the weights.
    """
    rows, size = weights_RP.shape
    deleted_RP = torch.zeros_like(weights_RP, dtype=torch.bool) if deleted_RP is None else deleted_RP
    steps = int(counts_R.max()) if rows else 0
    at_once = max(1, device_kind(weights_RP.device.type).solver_elements // max(1, steps * size))
    parts = [
        _delete(weights, inverse_PP, counts, steps, already_deleted, size if prunable is None else prunable, pattern)
        for weights, counts, already_deleted in zip(
            weights_RP.split(at_once),
            counts_R.to(weights_RP.device).split(at_once),
            deleted_RP.split(at_once),
            strict=True,
        )
    ]
    return OBSUpdate(
        torch.cat([part.weights_RP for part in parts]),
        torch.cat([part.deleted_RP for part in parts]),
        torch.cat([part.increases_RT for part in parts]),
    )


def _delete(
    weights_RP: Tensor,
    inverse_PP: Tensor,
    counts_R: Tensor,
    steps: int,
    deleted_RP: Tensor,
    prunable: int,
    pattern: Pattern,
) -> OBSUpdate:
    rows, size = weights_RP.shape
    w_RP, deleted_RP = weights_RP.clone(), deleted_RP.clone()
    every_R = torch.arange(rows, device=w_RP.device)
    barred_RP = deleted_RP.clone()
    barred_RP[:, prunable:] = True
    full_groups = _FullGroups(barred_RP, prunable, pattern)
    start_P = inverse_PP.diagonal()
    floor_P = start_P * torch.finfo(w_RP.dtype).eps  # rounding errors could make it zero or negative
    diagonal_RP = start_P.expand(rows, size).clone()
    U_RTP = w_RP.new_zeros(rows, steps, size)
    increases_RT = w_RP.new_zeros(rows, steps)
    for step in range(steps):
        active_R = counts_R > step
        score_RP = w_RP.square().div_(diagonal_RP).div_(2).masked_fill_(barred_RP, torch.inf)
        increase_R, q_R = score_RP.min(dim=1)
        increases_RT[:, step] = increase_R * active_R
        pivot_R = diagonal_RP[every_R, q_R]
        c_RP = inverse_PP[q_R]
        if step:
            c_RP -= torch.bmm(U_RTP[every_R, :step, q_R].unsqueeze(1), U_RTP[:, :step]).squeeze(1)
        w_RP -= (active_R * w_RP[every_R, q_R] / pivot_R)[:, None] * c_RP
        u_RP = c_RP * (active_R / pivot_R.sqrt())[:, None]
        U_RTP[:, step] = u_RP
        diagonal_RP = torch.maximum(diagonal_RP - u_RP.square(), floor_P)
        deleted_RP[every_R[active_R], q_R[active_R]] = True
        barred_RP[every_R[active_R], q_R[active_R]] = True
        full_groups.bar(every_R[active_R], q_R[active_R])
    return OBSUpdate(w_RP.masked_fill_(deleted_RP, 0), deleted_RP, increases_RT)


class _FullGroups:
    """Groups of m consecutive weights; when m − n are deleted, `barred_RP` bars the others from deletion.

    It does nothing without an n:m pattern.
    """

    def __init__(self, barred_RP: Tensor, prunable: int, pattern: Pattern) -> None:
        self._of = pattern.of
        if pattern.of is None or pattern.keep is None:
            return
        assert prunable % pattern.of == 0
        self._most = pattern.of - pattern.keep
        self._barred_RGM = barred_RP[:, :prunable].unflatten(1, (-1, pattern.of))
        self._lost_RG = self._barred_RGM.sum(-1)
        self._barred_RGM |= (self._lost_RG >= self._most)[..., None]

    def bar(self, rows_N: Tensor, columns_N: Tensor) -> None:
        """Count one more deleted weight in each of these rows, and bar the groups that have lost m − n weights."""
        if self._of is None:
            return
        groups_N = columns_N // self._of
        self._lost_RG[rows_N, groups_N] += 1
        full_N = self._lost_RG[rows_N, groups_N] >= self._most
        self._barred_RGM[rows_N[full_N], groups_N[full_N]] = True
