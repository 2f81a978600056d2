"""Removal of neurons that read nothing, or that nothing reads (Han 2015, section 3.5), in networks of any shape.

Readers are found by poisoning: a NaN spreads to everything computed from it, but not past the next layer where that
layer's outputs are replaced. The network's outputs do not change with the removal: a neuron without inputs sends a
constant, which is added to the biases of its readers; where that is impossible, its readers keep reading it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.models.hooks import removed_after
from core.engine.pruning.iterative.curvature import Trace
from core.engine.pruning.layer_matrix import Layer, groups_of, input_rows, layer_of, output_rows, set_matrix, to_matrix
from core.engine.pruning.network import Network

_IMAGES = 32
"""Number of images on which a neuron without gradient is a candidate, and on which outputs are compared."""
_PROBED_AT_ONCE = 64
_TOLERANCE = 1e-4
"""Largest change of the logits, relative to the largest, that another order of summation may cause."""


@dataclass(frozen=True)
class DeadNeurons:
    """Neurons that became zero, and weights that were removed.

    `neurons` counts neurons that have no weights of their own left, or that nothing reads. `weights` counts the weights
    zeroed with them, in their own rows and in the columns that read them.
    """

    neurons: int
    weights: int


@torch.no_grad()
def remove_dead_neurons(network: Network) -> DeadNeurons:
    """Zero the weights of dead neurons until none is left; one may leave another without inputs or readers.

    Where the logits of some images would change, nothing is removed, and a note reports it.
    """
    layers = {shape.name: layer_of(network.model, shape.name) for shape in network.layers}
    pixels_BCHW = network.calibration.batch(range(min(_IMAGES, len(network.calibration)))).to(network.device)
    expected_BK = network.logits(pixels_BCHW)
    before = {name: each.clone() for name, each in network.model.state_dict().items()}
    weights = 0
    while zeroed := _fold_constants(network, layers, pixels_BCHW) + _zero_unread(network, layers, pixels_BCHW):
        weights += zeroed
    difference = (network.logits(pixels_BCHW) - expected_BK).abs().max() / expected_BK.abs().max().clamp(min=1e-12)
    if not difference <= _TOLERANCE:
        network.model.load_state_dict(before)
        network.notes.append("dead neurons were left: without them the logits would have changed")
        weights = 0
    neurons = sum(int((to_matrix(layer) == 0).all(dim=1).sum()) for layer in layers.values())
    return DeadNeurons(neurons, weights)


@contextmanager
def _with_outputs_replaced(
    layers: Mapping[str, Layer], hook: Callable[[str, Layer, Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """Replace each layer's outputs by the result of `hook`, called with name, layer, inputs and outputs."""

    def of(name: str) -> Any:
        return lambda layer, arguments, outputs: hook(name, layer, arguments[0], outputs)

    handles = [layer.register_forward_hook(of(name)) for name, layer in layers.items()]
    with removed_after(handles):
        yield


def _fold_constants(network: Network, layers: Mapping[str, Layer], pixels_BCHW: Tensor) -> int:
    """Move the constants of neurons without inputs into the biases of their readers; return the weights zeroed.

    The image and all other neurons are poisoned: values that reach a layer as numbers come from neurons without inputs.
    """
    arrived: dict[str, list[Tensor]] = {}

    def hook(name: str, layer: Layer, inputs: Tensor, outputs: Tensor) -> Tensor:
        X_GLI = next(input_rows(name, layer, inputs, 1))[0]
        first_GI = X_GLI[:, 0]
        same_GI = (X_GLI[:, :1] == X_GLI).all(dim=1)  # False for NaN
        arrived.setdefault(name, []).append(torch.where(same_GI, first_GI, torch.nan))
        silent_O = (to_matrix(layer) == 0).all(dim=1)
        sent_O = torch.zeros_like(silent_O, dtype=outputs.dtype) if layer.bias is None else layer.bias
        sent_O = torch.where(silent_O, sent_O, torch.nan)
        return torch.ones_like(outputs) * _along_outputs(layer, sent_O)

    with _with_outputs_replaced(layers, hook):
        network.logits(torch.full_like(pixels_BCHW[:1], torch.nan))
    removed = 0
    for name, uses in arrived.items():
        layer = layers[name]
        value_GI = uses[0]
        for other_GI in uses[1:]:
            value_GI = torch.where(other_GI == value_GI, value_GI, torch.nan)
        if layer.bias is None:
            value_GI = torch.where(value_GI == 0, value_GI, torch.nan)
        weight_GOI = to_matrix(layer).unflatten(0, (groups_of(layer), -1))
        constant_G1I = value_GI.isfinite()[:, None]
        folded_GOI = weight_GOI * constant_G1I
        folded = int((folded_GOI != 0).sum())
        if folded:
            if layer.bias is not None:
                layer.bias += (folded_GOI * value_GI.nan_to_num()[:, None]).sum(dim=2).flatten()
            set_matrix(layer, (weight_GOI * ~constant_G1I).flatten(0, 1))
            removed += folded
    return removed


def _along_outputs(layer: Layer, values_O: Tensor) -> Tensor:
    return values_O[:, None, None] if isinstance(layer, nn.Conv2d) else values_O


def _zero_unread(network: Network, layers: Mapping[str, Layer], pixels_BCHW: Tensor) -> int:
    """Zero the rows and biases of neurons that nothing reads; return the number of weights that became zero."""
    removed = 0
    for name, suspects in _without_gradient(network, layers, pixels_BCHW).items():
        layer = layers[name]
        matrix_OI = to_matrix(layer).clone()
        for part in suspects.split(_PROBED_AT_ONCE):
            unread = part[~_is_read(network, layers, name, part, pixels_BCHW)]
            removed += int((matrix_OI[unread] != 0).sum())
            matrix_OI[unread] = 0
            if layer.bias is not None:
                layer.bias[unread] = 0
        set_matrix(layer, matrix_OI)
    return removed


def _without_gradient(network: Network, layers: Mapping[str, Layer], pixels_BCHW: Tensor) -> dict[str, Tensor]:
    """Return the neurons, by layer, that have weights but whose outputs get no gradient from these images' logits."""
    with torch.enable_grad(), Trace(layers) as trace:
        logits_BK = network.logits(pixels_BCHW)
        gradients = torch.autograd.grad(
            logits_BK.square().sum(), [outputs for _, _, outputs in trace.uses], allow_unused=True
        )
    alive: dict[str, Tensor] = {}
    for (name, _, _), gradient in zip(trace.uses, gradients, strict=True):
        layer = layers[name]
        if gradient is not None:
            seen_O = (output_rows(layer, gradient, len(pixels_BCHW)) != 0).any(dim=2).any(dim=0).flatten()
            alive[name] = alive.get(name, torch.zeros_like(seen_O)) | seen_O
    suspects = {}
    for name, seen_O in alive.items():
        suspect_O = ~seen_O & (to_matrix(layers[name]) != 0).any(dim=1)
        if suspect_O.any():
            suspects[name] = suspect_O.nonzero().flatten()
    return suspects


def _is_read(
    network: Network, layers: Mapping[str, Layer], name: str, neurons_N: Tensor, pixels_BCHW: Tensor
) -> Tensor:
    """Return True for each neuron of a layer if a nonzero weight or the logits depend on it: [neurons].

    There is one image for each neuron; the neuron is poisoned in its image.
    """
    read_N = torch.zeros(len(neurons_N), dtype=torch.bool, device=network.device)
    nonzero = {
        each: (to_matrix(layer) != 0).unflatten(0, (groups_of(layer), -1)).any(1) for each, layer in layers.items()
    }

    def hook(at: str, layer: Layer, inputs: Tensor, outputs: Tensor) -> Tensor:
        if inputs.isnan().any():
            done = 0
            for X_BGLI in input_rows(at, layer, inputs, len(neurons_N)):
                poisoned_BGI = X_BGLI.isnan().any(dim=2)
                read_N[done : done + len(X_BGLI)] |= (poisoned_BGI & nonzero[at]).flatten(1).any(dim=1)
                done += len(X_BGLI)
            if read_N.all():
                raise _AllAreReadError
        outputs = outputs.nan_to_num()
        if at == name:
            images = outputs.unflatten(0, (len(neurons_N), -1))
            for image, neuron in enumerate(neurons_N.tolist()):
                channels = images[image].movedim(1 if isinstance(layer, nn.Conv2d) else -1, 0)
                channels[neuron] = torch.nan
        return outputs

    with _with_outputs_replaced(layers, hook), suppress(_AllAreReadError):
        logits_NK = network.logits(pixels_BCHW[:1].expand(len(neurons_N), *pixels_BCHW.shape[1:]))
        read_N |= logits_NK.isnan().any(dim=1)
    return read_N


class _AllAreReadError(Exception):
    """Raised when every neuron is read, so that the rest of the forward need not run."""
