"""Optimal Brain Damage (LeCun, Denker & Solla 1989, NIPS 2), and the second derivatives of a classifier's loss.

The loss C of an image depends on the weights w through the logits z. With J = ∂z/∂w its Hessian is JᵀHJ, where H is the
Hessian of C in z, plus a term that vanishes where the fit is good and is left out (Gauss–Newton). For softmax p and
cross-entropy H = diag(p) − ppᵀ = Σ_k s_k s_kᵀ, s_k = √p_k (e_k − p). So JᵀHJ is the sum over classes of the outer
products of v_k = Jᵀs_k with themselves: one backward pass for each class, exact. The empirical Fisher replaces all s_k
by the gradient of the loss itself; the squared error of the logits replaces them by e_k.

A backward pass over a batch gives the gradient in each layer's outputs. With the layer's inputs it gives the gradient
of every single image in the layer's weight. Shapes are those of `core.engine.pruning.layer_matrix`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.counting import counted
from core.engine.datasets.image_set import ImageSet, draw_images
from core.engine.models.hooks import removed_after
from core.engine.options.axes import Curvature
from core.engine.pruning.layer_matrix import CHUNK, Layer, input_rows, layer_of, output_rows, to_matrix
from core.engine.pruning.network import Network, mean_loss
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.methods.classifiers.rounds import matrices, prunable_weights, prune_in_rounds, zero_lowest
from core.methods.descriptions.classifiers import OBDParameters

_Use = tuple[str, Tensor, Tensor]
"""Name of a layer, its inputs and its outputs."""
_Pairs = Mapping[str, Sequence[tuple[Tensor, Tensor]]]
"""Inputs of each use of a layer and the gradients in its outputs, by the layer's name."""


class OBD(ClassifierMethod):
    """Saliency s_k = ½·h_kk·w_k²; the lowest of the entire network are deleted first. Each round computes h_kk anew.

    `curvature` decides how h_kk is computed. The figures of each round hold the predicted increase of the loss, which
    is the sum of the saliencies, and the measured one. Both are taken on the images that h_kk was computed from.
    """

    def __init__(self, parameters: OBDParameters) -> None:
        self.parameters = parameters

    def prune(self, network: Network) -> None:
        parameters = self.parameters
        images = draw_images(network.calibration, parameters.curvature_images, parameters.seed)
        total = round(network.sparsity * prunable_weights(network))

        def cut(share: float) -> dict[str, Any]:
            h = mean_squares(network, images, parameters.curvature)
            saliencies = {name: weight_OI.square() * h[name] / 2 for name, weight_OI in matrices(network).items()}
            before = mean_loss(network, images)
            count = round(share * total)
            deleted = zero_lowest(network, saliencies, count)
            predicted = sum(
                float(saliencies[name][deleted_OI].sum(dtype=torch.float64)) for name, deleted_OI in deleted.items()
            )
            return {
                "removed": count,
                "deleted": sum(int(deleted_OI.sum()) for deleted_OI in deleted.values()),
                "predicted_increase": predicted,
                "measured_increase": mean_loss(network, images) - before,
                "loss_before": before,
            }

        prune_in_rounds(network, parameters, parameters.seed, cut)


@contextmanager
def recorded(layers: Mapping[str, Layer]) -> Iterator[list[_Use]]:
    """Record the layers' inputs and outputs in forward passes inside the context, in order of execution."""
    uses: list[_Use] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def record(layer: nn.Module, arguments: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
            uses.append((name, arguments[0].detach(), outputs))
            return outputs.clone()  # later operations may write into the outputs

        return record

    with removed_after(layer.register_forward_hook(hook(name)) for name, layer in layers.items()):
        yield uses


def logit_vectors(curvature: Curvature, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Return s_VBK, the vectors of each image whose outer products add up to H; the module defines them."""
    p_BK = logits_BK.detach().softmax(dim=-1)
    identity_KK = torch.eye(p_BK.shape[1], dtype=p_BK.dtype, device=p_BK.device)
    if curvature == "empirical_fisher":
        return (p_BK - identity_KK[labels_B])[None]
    if curvature == "squared_error":
        return identity_KK[:, None].expand(-1, len(p_BK), -1)
    return p_BK.T.sqrt()[:, :, None] * (identity_KK[:, None] - p_BK)


def mean_squares(network: Network, images: ImageSet, curvature: Curvature) -> dict[str, Tensor]:
    """Return h of the network's layers, by name, float32 [outputs, kernel x inputs].

    h is the Hessian's diagonal, the mean over the images of Σ_k v_k².
    """
    layers = {layer.name: layer_of(network.model, layer.name) for layer in network.layers}
    totals = {
        layer.name: torch.zeros(layer.out_features, layer.in_features, device=network.device)
        for layer in network.layers
    }
    size = min(network.batch_size, max(1, CHUNK // max(layer.numel for layer in network.layers)))
    for uses, count in _gradients(network, images, curvature, size):
        for name, pairs in uses.items():
            totals[name] += _summed_squares(name, layers[name], pairs, count)
    return {name: total / len(images) for name, total in totals.items()}


def gradient_rows(network: Network, images: ImageSet, curvature: Curvature) -> Iterator[Tensor]:
    """Yield v_k of single images, a few at a time: [vectors, P] float32.

    P are the weights of the network's layers as matrices, one after the other, and then the biases of those that have
    one.
    """
    layers = {layer.name: layer_of(network.model, layer.name) for layer in network.layers}
    size = min(network.batch_size, max(1, CHUNK // prunable_weights(network)))
    for uses, count in _gradients(network, images, curvature, size):
        weights, biases = [], []
        for shape in network.layers:
            layer, pairs = layers[shape.name], uses.get(shape.name, [])
            weights.append(_sample_gradients(shape.name, layer, pairs, count).flatten(1))
            if layer.bias is not None:
                bias_BO = torch.zeros(count, shape.out_features, device=network.device)
                for _, gradient in pairs:
                    bias_BO += output_rows(layer, gradient, count).sum(2).flatten(1)
                biases.append(bias_BO)
        yield torch.cat([*weights, *biases], dim=1)


def _gradients(network: Network, images: ImageSet, curvature: Curvature, size: int) -> Iterator[tuple[_Pairs, int]]:
    """Yield the layers' uses and the number of images, for each batch of `size` images and each of its vectors s."""
    layers = {layer.name: layer_of(network.model, layer.name) for layer in network.layers}
    for numbers in counted(torch.arange(len(images)).split(size), "taking curvature from batches"):
        with torch.enable_grad(), recorded(layers) as uses:
            logits_BK = network.logits(images.batch(numbers).to(network.device))
        outputs = [each for _, _, each in uses]
        for vector_BK in logit_vectors(curvature, logits_BK, images.labels_N[numbers]):
            gradients = torch.autograd.grad(logits_BK, outputs, vector_BK, retain_graph=True, allow_unused=True)
            pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
            for (name, inputs, _), gradient in zip(uses, gradients, strict=True):
                if gradient is not None:  # the logits depend on it
                    pairs.setdefault(name, []).append((inputs, gradient))
            yield pairs, len(numbers)
            del gradients
            for each in pairs.values():
                each.clear()  # the caller refers to them, and they are as large as a batch's activations
        del uses, outputs, logits_BK


def _summed_squares(name: str, layer: Layer, pairs: Sequence[tuple[Tensor, Tensor]], images: int) -> Tensor:
    """Return the sum over images of each image's squared gradient, [outputs, inputs]."""
    if len(pairs) == 1:
        gradient_BGLO = output_rows(layer, pairs[0][1], images)
        if gradient_BGLO.shape[2] == 1:  # one position: the square of a product is the product of squares
            total_OI, done = torch.zeros_like(to_matrix(layer)), 0
            for X_BGLI in input_rows(name, layer, pairs[0][0], images):
                delta_BGO = gradient_BGLO[done : done + len(X_BGLI), :, 0]
                products_GOI = torch.einsum("bgi,bgo->goi", X_BGLI[:, :, 0].square(), delta_BGO.square())
                total_OI += products_GOI.flatten(0, 1)
                done += len(X_BGLI)
            return total_OI
    return _sample_gradients(name, layer, pairs, images).square().sum(0)


def _sample_gradients(name: str, layer: Layer, pairs: Sequence[tuple[Tensor, Tensor]], images: int) -> Tensor:
    """Return each image's gradient in the layer's weight, [images, outputs, inputs]."""
    weight = layer.weight
    total_BOI = torch.zeros(images, len(weight), weight[0].numel(), device=weight.device)
    for inputs, gradient in pairs:
        gradient_BGLO = output_rows(layer, gradient, images)
        done = 0
        for X_BGLI in input_rows(name, layer, inputs, images):
            part = slice(done, done + len(X_BGLI))
            total_BOI[part] += torch.einsum("bgli,bglo->bgoi", X_BGLI, gradient_BGLO[part]).flatten(1, 2)
            done += len(X_BGLI)
    return total_BOI
