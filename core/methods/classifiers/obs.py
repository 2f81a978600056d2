"""Optimal Brain Surgeon (Hassibi & Stork 1993, NIPS 5): delete the cheapest weight, update all others, and repeat.

Deleting w_q costs L_q = w_q² / (2 [H⁻¹]_qq) on the quadratic with Hessian H, if the others move by δw = −(w_q /
[H⁻¹]_qq) · H⁻¹ e_q (eq. 5). The inverse of H without row and column q is then the Schur complement H⁻¹ − c cᵀ / c_q, c
= H⁻¹ e_q, without row and column q. Repeating this is the Cholesky factorisation of H⁻¹ with the cheapest weight as
pivot: with u = c/√c_q, the complement after t deletions is H⁻¹ − UᵀU, where U has the t rows u. The algorithm reads
only its diagonal and the pivot's column, and never writes to H⁻¹. So all rows share one H⁻¹, and each row has its own
U.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.device_kinds import device_kind
from core.engine.datasets.image_set import ImageSet, draw_images
from core.engine.options.patterns import UNSTRUCTURED, Pattern, require_divisible
from core.engine.pruning.compensation.column_update import damped_inverse_factor
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.layer_matrix import layer_of, set_matrix
from core.engine.pruning.layerwise.classifier_pass import OneShot
from core.engine.pruning.masks import LayerTarget
from core.engine.pruning.network import Network, mean_loss
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.retraining import restore_round, save_round
from core.engine.pruning.solver import PrunableLinear, Solver
from core.methods.classifiers.obd import gradient_rows
from core.methods.classifiers.rounds import matrices, prunable_weights
from core.methods.descriptions.classifiers import OBSParameters, is_exact

_FREE = 1e18
"""Value of [H⁻¹]_jj for an input that is always zero: its weights cost nothing and are deleted first."""


class OBS(Solver):
    """Layer by layer: the squared error of a layer's outputs is a quadratic in its weights, so the update is exact.

    Every output row is a problem of its own with the same Hessian H = 2XᵀX / tokens. Equally many weights of every row
    are deleted, give or take one, so that the layer meets its target exactly.
    """

    statistic = Statistic.GRAM

    def __init__(self, parameters: OBSParameters) -> None:
        self.damping = parameters.damping

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        factor_II, dead_I = damped_inverse_factor(
            inputs.gram_II * (2 / inputs.tokens), self.damping, lambda text: note(f"{linears[0].name}: {text}")
        )
        inverse_II = factor_II.T @ factor_II
        inverse_II.diagonal()[dead_I] = _FREE
        return [
            obs_prune(
                linear.weight_OI, inverse_II, row_counts(linear.weight_OI, linear.target), pattern=linear.target.pattern
            ).weights_RP
            for linear in linears
        ]


class ClassifierOBS(ClassifierMethod):
    """Optimal Brain Surgeon of a classifier: of the entire network if it is small enough, otherwise layer by layer.

    Of the entire network: H = Σ_k v_k v_kᵀ / images over all weights and biases of the layers. Each step deletes the
    cheapest weight of the entire network and updates every other weight and bias, until the sparsity is met. The
    figures hold the predicted increase of the loss, L_q of each deletion, and the measured increase.
    """

    def __init__(self, parameters: OBSParameters) -> None:
        self.parameters = parameters

    def prune(self, network: Network) -> None:
        parameters = self.parameters
        require_divisible(network.layers, network.pattern)
        if not is_exact(parameters, network.layers):
            network.figures["mode"] = "layer_wise"
            OneShot(OBS(parameters), parameters).prune(network)
            return
        images = draw_images(network.calibration, parameters.curvature_images, parameters.seed)
        if restore_round(network) is None:
            network.figures |= {"mode": "exact", "loss_before": mean_loss(network, images), "predicted_increases": []}
        increases: list[float] = network.figures["predicted_increases"]
        while left := weights_to_go(network):
            network.progress.raise_if_stopped()
            deletion = self._delete(network, images, min(left, parameters.reestimate_every or left))
            increases += deletion.increases_RT[0].tolist()
            save_round(network, len(increases))
            network.progress.advance(len(increases) / (len(increases) + weights_to_go(network)))
        network.figures["predicted_increase"] = sum(increases)
        network.figures["measured_increase"] = mean_loss(network, images) - network.figures["loss_before"]

    @torch.no_grad()
    def _delete(self, network: Network, images: ImageSet, count: int) -> "OBSUpdate":
        """Estimate the Hessian of the remaining weights, and delete `count` of them."""
        layers = {shape.name: layer_of(network.model, shape.name) for shape in network.layers}
        weights = matrices(network)
        biases = [layer.bias for layer in layers.values() if layer.bias is not None]
        sizes = [each.numel() for each in [*weights.values(), *biases]]
        w_P = torch.cat([each.detach().flatten() for each in [*weights.values(), *biases]]).double()
        prunable = prunable_weights(network)
        deleted_P = w_P == 0
        deleted_P[prunable:] = False
        inverse_PP = inverse_hessian(
            (rows.masked_fill_(deleted_P, 0) for rows in gradient_rows(network, images, self.parameters.curvature)),
            len(w_P),
            alpha=self.parameters.alpha,
            samples=len(images),
        )
        deletion = obs_prune(
            w_P[None],
            inverse_PP,
            torch.tensor([count]),
            deleted_RP=deleted_P[None],
            prunable=prunable,
            pattern=network.pattern,
        )
        parts = deletion.weights_RP[0].float().split(sizes)
        for (name, weight_OI), part in zip(weights.items(), parts, strict=False):
            set_matrix(layers[name], part.view_as(weight_OI))
        for bias, part in zip(biases, parts[len(weights) :], strict=True):
            bias.copy_(part)
        return deletion


def row_counts(weight_OI: Tensor, target: LayerTarget) -> Tensor:
    """Return the number of weights that each row loses, int64 [out_features]; the first rows may lose one more."""
    rows, size = weight_OI.shape
    if target.pattern.of is not None and target.pattern.keep is not None:
        return torch.full((rows,), size // target.pattern.of * (target.pattern.of - target.pattern.keep))
    least, more = divmod(target.of_tensor(weight_OI.numel()), rows)
    counts_R = torch.full((rows,), least)
    counts_R[:more] += 1
    return counts_R


def weights_to_go(network: Network) -> int:
    """Count the weights that must still become zero, by the sparsity or by the n:m pattern."""
    pattern, weights = network.pattern, matrices(network).values()
    if pattern.of is None or pattern.keep is None:
        zeros = sum(int((weight_OI == 0).sum()) for weight_OI in weights)
        return max(0, round(network.sparsity * prunable_weights(network)) - zeros)
    zeros_RG = [(weight_OI == 0).unflatten(1, (-1, pattern.of)).sum(-1) for weight_OI in weights]
    return sum(int((pattern.of - pattern.keep - each).clamp(min=0).sum()) for each in zeros_RG)


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
    """Delete `counts_R` weights of each row, the cheapest first, by the exact update; rows share one Hessian.

    `deleted_RP` marks weights that are already deleted: they are zero and not part of H. Only the first `prunable`
    columns may be deleted (None: all); the others are still updated. With an n:m pattern, no group of m consecutive
    weights loses more than m − n. The computation is in the dtype of the weights.
    """
    rows, size = weights_RP.shape
    deleted_RP = torch.zeros_like(weights_RP, dtype=torch.bool) if deleted_RP is None else deleted_RP
    steps = int(counts_R.max()) if rows else 0
    at_once = max(1, device_kind(weights_RP.device.type).solver_elements // max(1, steps * size))
    of_rows = (weights_RP, counts_R.to(weights_RP.device), deleted_RP)
    parts = [
        _delete(weights, counts, deleted, inverse_PP, steps, size if prunable is None else prunable, pattern)
        for weights, counts, deleted in zip(*(each.split(at_once) for each in of_rows), strict=True)
    ]
    return OBSUpdate(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _delete(
    weights_RP: Tensor, counts_R: Tensor, deleted_RP: Tensor, inverse_PP: Tensor, steps: int, prunable: int,
    pattern: Pattern,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the values of an `OBSUpdate` for a few rows."""
    rows, size = weights_RP.shape
    w_RP, deleted_RP = weights_RP.clone(), deleted_RP.clone()
    every_R = torch.arange(rows, device=w_RP.device)
    start_P = inverse_PP.diagonal()
    floor_P = start_P * torch.finfo(w_RP.dtype).eps  # rounding errors could make it zero or negative
    diagonal_RP = start_P.expand(rows, size).clone()
    U_RTP = w_RP.new_zeros(rows, steps, size)
    increases_RT = w_RP.new_zeros(rows, steps)
    for step in range(steps):
        active_R = counts_R > step
        score_RP = w_RP.square().div_(diagonal_RP).div_(2).masked_fill_(deleted_RP, torch.inf)
        score_RP[:, prunable:] = torch.inf
        if pattern.of is not None and pattern.keep is not None:
            lost_RG = deleted_RP[:, :prunable].unflatten(1, (-1, pattern.of)).sum(-1)
            is_full_RP = (lost_RG >= pattern.of - pattern.keep).repeat_interleave(pattern.of, dim=1)
            score_RP[:, :prunable].masked_fill_(is_full_RP, torch.inf)
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
    return w_RP.masked_fill_(deleted_RP, 0), deleted_RP, increases_RT
