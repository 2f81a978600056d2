"""Optimal Brain Surgeon (Hassibi & Stork 1993, NIPS 5) with one Hessian of an entire image classifier."""

import torch

from core.engine.datasets.image_set import ImageSet
from core.engine.datasets.subset import draw_images
from core.engine.pruning.iterative.curvature import gradient_rows
from core.engine.pruning.iterative.rounds import matrices, prunable_weights, resume, save
from core.engine.pruning.layer_matrix import layer_of, set_matrix
from core.engine.pruning.network import Network, mean_loss
from core.methods.obs.info import OBSParameters
from core.methods.obs.surgeon import OBSUpdate, inverse_hessian, obs_prune


def weights_to_go(network: Network) -> int:
    """Count the weights that must still become zero, by the sparsity or in every m consecutive weights."""
    pattern, weights = network.pattern, matrices(network).values()
    if pattern.of is None or pattern.keep is None:
        zeros = sum(int((weight_OI == 0).sum()) for weight_OI in weights)
        return max(0, round(network.sparsity * prunable_weights(network)) - zeros)
    zeros_RG = [(weight_OI == 0).unflatten(1, (-1, pattern.of)).sum(-1) for weight_OI in weights]
    return sum(int((pattern.of - pattern.keep - each).clamp(min=0).sum()) for each in zeros_RG)


class GlobalOBS:
    """Deletion by one Hessian of the entire network.

    H = Σ_k v_k v_kᵀ / images over all weights and biases of the layers; the cheapest weight of the entire network is
    deleted, every other weight and bias moves, until the sparsity is met. The predicted increases of the loss, L_q of
    each deletion, and the measured one go into the figures.
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
        """Estimate the Hessian of the weights that are left, and delete `count` of them."""
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
