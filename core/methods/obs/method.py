"""Optimal Brain Surgeon, layer by layer (Hassibi & Stork 1993, NIPS 5); each output row is a problem of its own.

The squared error of one linear layer's outputs is a quadratic in its weights. Every output row has the same Hessian H =
2XᵀX / tokens, so the update is exact. Every row deletes its cheapest weights one at a time.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.engine.datasets.image_set import ImageSet, draw_images
from core.engine.options.patterns import require_divisible
from core.engine.pruning.compensation.column_update import damped_inverse_factor
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.iterative.curvature import gradient_rows
from core.engine.pruning.iterative.rounds import matrices, prunable_weights, resume, save
from core.engine.pruning.layer_matrix import layer_of, set_matrix
from core.engine.pruning.layerwise.classifier_pass import OneShot
from core.engine.pruning.masks import LayerTarget
from core.engine.pruning.network import Network, mean_loss
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.solver import PrunableLinear, Solver
from core.methods.descriptions.classifiers import OBSParameters, is_exact
from core.methods.obs.surgeon import OBSUpdate, inverse_hessian, obs_prune

_FREE = 1e18
"""Value of [H⁻¹]_jj for an input that is always zero: its weights cost nothing and are deleted first."""


class OBS(Solver):
    """Deletion of equally many weights in every row, give or take one, so that the layer meets its target exactly."""

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
    """Optimal Brain Surgeon of a classifier: of the entire network if it is small enough, otherwise layer by layer."""

    def __init__(self, parameters: OBSParameters) -> None:
        self.parameters = parameters

    def prune(self, network: Network) -> None:
        require_divisible(network.layers, network.pattern)
        if is_exact(self.parameters, network.layers):
            GlobalOBS(self.parameters).prune(network)
        else:
            network.figures["mode"] = "layer_wise"
            OneShot(OBS(self.parameters), self.parameters).prune(network)


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


class GlobalOBS:
    """Deletion by one Hessian of the entire network.

    H = Σ_k v_k v_kᵀ / images over all weights and biases of the layers. Each step deletes the cheapest weight of the
    entire network and updates every other weight and bias, until the sparsity is met. The figures hold the predicted
    increase of the loss, L_q of each deletion, and the measured increase.
    """

    def __init__(self, parameters: OBSParameters) -> None:
        self.parameters = parameters

    def prune(self, network: Network) -> None:
        parameters = self.parameters
        images = draw_images(network.calibration, parameters.curvature_images, parameters.seed)
        if resume(network) is None:
            network.figures |= {"mode": "exact", "loss_before": mean_loss(network, images), "predicted_increases": []}
        increases: list[float] = network.figures["predicted_increases"]
        while left := weights_to_go(network):
            network.progress.raise_if_stopped()
            deletion = self._delete(network, images, min(left, parameters.reestimate_every or left))
            increases += deletion.increases_RT[0].tolist()
            save(network, len(increases))
            network.progress.advance(len(increases) / (len(increases) + weights_to_go(network)))
        network.figures["predicted_increase"] = sum(increases)
        network.figures["measured_increase"] = mean_loss(network, images) - network.figures["loss_before"]

    @torch.no_grad()
    def _delete(self, network: Network, images: ImageSet, count: int) -> OBSUpdate:
        """Estimate the Hessian of the remaining weights, and delete `count` of them."""
        layers = {shape.name: layer_of(network.model, shape.name) for shape in network.layers}
        weights = matrices(network)
        biases = [layer.bias for layer in layers.values() if layer.bias is not None]
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
        sizes = [each.numel() for each in [*weights.values(), *biases]]
        parts = deletion.weights_RP[0].float().split(sizes)
        for (name, weight_OI), part in zip(weights.items(), parts, strict=False):
            set_matrix(layers[name], part.view_as(weight_OI))
        for bias, part in zip(biases, parts[len(weights) :], strict=True):
            bias.copy_(part)
        return deletion
