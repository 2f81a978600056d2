"""Second derivatives of a classifier's loss in its weights, from derivatives of single images.

The loss C of an image depends on the weights w through the logits z. With J = ∂z/∂w its Hessian is JᵀHJ, where H is the
Hessian of C in z, plus a term that vanishes where the fit is good and is left out (Gauss–Newton). For softmax p and
cross-entropy H = diag(p) − ppᵀ = Σ_k s_k s_kᵀ, s_k = √p_k (e_k − p). So JᵀHJ is the sum over classes of the outer
products of v_k = Jᵀs_k with themselves: one backward pass for each class, exact. The empirical Fisher replaces all s_k
by the gradient of the loss itself; the squared error of the logits replaces them by e_k.

A backward pass over a batch gives the gradient in each layer's outputs. With the layer's inputs it gives the gradient
of every single image in the layer's weight. Shapes are those of `core.engine.pruning.layer_matrix`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from core.counting import counted
from core.engine.datasets.image_set import ImageSet
from core.engine.options.axes import Curvature
from core.engine.pruning.layer_matrix import CHUNK, Layer, input_rows, layer_of, output_rows, to_matrix
from core.engine.pruning.network import Network

Result = TypeVar("Result")
_Use = tuple[str, Tensor, Tensor]
"""Name of a layer, its inputs and its outputs."""


class Trace:
    """Recorder of the layers' inputs and outputs in forward passes inside the context, in order of execution."""

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self._layers = layers
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self.uses: list[_Use] = []

    def __enter__(self) -> "Trace":
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        def hook(layer: nn.Module, arguments: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
            self.uses.append((name, arguments[0].detach(), outputs))
            return outputs.clone()  # later operations may write into the outputs

        return hook


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

    def add(uses: Sequence[_Use], gradients: Sequence[Tensor | None], count: int) -> None:
        for name, pairs in _by_layer(uses, gradients).items():
            totals[name] += _summed_squares(name, layers[name], pairs, count)

    for _ in _Passes(network, layers, images, curvature).results(images_at_once(network), add):
        pass
    return {name: total / len(images) for name, total in totals.items()}


def images_at_once(network: Network) -> int:
    """Return the number of images whose gradients in the largest layer's weight are computed at a time."""
    return min(network.batch_size, max(1, CHUNK // max(layer.numel for layer in network.layers)))


def gradient_rows(network: Network, images: ImageSet, curvature: Curvature) -> Iterator[Tensor]:
    """Yield v_k of single images, a few at a time: [vectors, P] float32.

    P are the weights of the network's layers as matrices, one after the other, and then the biases of those that have
    one.
    """
    layers = {layer.name: layer_of(network.model, layer.name) for layer in network.layers}
    widths = sum(layer.numel for layer in network.layers)
    size = min(network.batch_size, max(1, CHUNK // widths))

    def rows(uses: Sequence[_Use], gradients: Sequence[Tensor | None], count: int) -> Tensor:
        by_layer = _by_layer(uses, gradients)
        weights, biases = [], []
        for shape in network.layers:
            layer, pairs = layers[shape.name], by_layer.get(shape.name, [])
            weights.append(_sample_gradients(shape.name, layer, pairs, count).flatten(1))
            if layer.bias is not None:
                bias_BO = torch.zeros(count, shape.out_features, device=network.device)
                for _, gradient in pairs:
                    bias_BO += output_rows(layer, gradient, count).sum(2).flatten(1)
                biases.append(bias_BO)
        return torch.cat([*weights, *biases], dim=1)

    yield from _Passes(network, layers, images, curvature).results(size, rows)


@dataclass(frozen=True)
class _Passes:
    """Forward and backward passes of images through a network, with some of its layers recorded."""

    network: Network
    layers: Mapping[str, Layer]
    images: ImageSet
    curvature: Curvature

    def results(
        self, size: int, use: Callable[[Sequence[_Use], Sequence[Tensor | None], int], Result]
    ) -> Iterator[Result]:
        """Yield the result of `use` per batch and vector, from the layers' uses, their outputs' gradients, and a count.

        Batches have `size` images. No tensor of a batch or a vector is in memory when the next one is computed.
        """
        for numbers in counted(torch.arange(len(self.images)).split(size), "taking curvature from batches"):
            yield from self._of_batch(numbers, use)

    def _of_batch(
        self, numbers: Tensor, use: Callable[[Sequence[_Use], Sequence[Tensor | None], int], Result]
    ) -> Iterator[Result]:
        pixels_BCHW = self.images.batch(numbers).to(self.network.device)
        with torch.enable_grad(), Trace(self.layers) as trace:
            logits_BK = self.network.logits(pixels_BCHW)
        outputs = [output for _, _, output in trace.uses]
        for vector_BK in logit_vectors(self.curvature, logits_BK, self.images.labels_N[numbers]):
            yield use(
                trace.uses,
                torch.autograd.grad(logits_BK, outputs, vector_BK, retain_graph=True, allow_unused=True),
                len(numbers),
            )


def _by_layer(uses: Sequence[_Use], gradients: Sequence[Tensor | None]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Return the inputs of each use and the gradients in its outputs, by layer, where the logits depend on it."""
    captured: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for (name, inputs, _), gradient in zip(uses, gradients, strict=True):
        if gradient is not None:
            captured.setdefault(name, []).append((inputs, gradient))
    return captured


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
