"""Removal of neurons that read nothing, or that nothing reads (Han 2015, section 3.5), in networks of any shape.

Readers are found by poisoning: a NaN spreads to everything computed from it, but not past the next layer where that
layer's outputs are replaced. The network's outputs do not change with the removal: a neuron without inputs sends a
constant, which is added to the biases of its readers; where that is impossible, its readers keep reading it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.models.hooks import removed_after
from core.engine.pruning.layer_matrix import Layer, groups_of, input_rows, layer_of, output_rows, set_matrix, to_matrix
from core.engine.pruning.network import Network
from core.methods.classifiers.obd import recorded

_IMAGES = 32
"""Number of images on which a neuron without gradient is a candidate, and on which outputs are compared."""
_TOLERANCE = 1e-4
"""Largest change of the logits, relative to the largest, that another order of summation may cause."""


@torch.no_grad()
def remove_dead_neurons(network: Network) -> dict[str, int]:
    """Zero the weights of dead neurons until none is left; one may leave another without inputs or readers.

    Returns `dead_neurons`, those that have no weights of their own left, or that nothing reads, and
    `weights_of_dead_neurons`, the weights zeroed with them, in their own rows and in the columns that read them. Where
    the logits of some images would change, nothing is removed, and a note reports it.
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
    return {"dead_neurons": neurons, "weights_of_dead_neurons": weights}


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
        return torch.ones_like(outputs) * (sent_O[:, None, None] if isinstance(layer, nn.Conv2d) else sent_O)

    with _with_outputs_replaced(layers, hook):
        network.logits(torch.full_like(pixels_BCHW[:1], torch.nan))
    removed = 0
    for name, uses in arrived.items():
        layer = layers[name]
        values_UGI = torch.stack(uses)
        value_GI = torch.where((values_UGI == values_UGI[0]).all(dim=0), values_UGI[0], torch.nan)
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


def _zero_unread(network: Network, layers: Mapping[str, Layer], pixels_BCHW: Tensor) -> int:
    """Zero the rows and biases of neurons that nothing reads; return the number of weights that became zero.

    Candidates have weights, but get no gradient from the logits of these images.
    """
    with torch.enable_grad(), recorded(layers) as uses:
        logits_BK = network.logits(pixels_BCHW)
        outputs = [each for _, _, each in uses]
        gradients = torch.autograd.grad(logits_BK.square().sum(), outputs, allow_unused=True)
    seen: dict[str, Tensor] = {}
    for (name, _, _), gradient in zip(uses, gradients, strict=True):
        if gradient is not None:
            rows_BGLO = output_rows(layers[name], gradient, len(pixels_BCHW))
            seen_O = (rows_BGLO != 0).any(dim=2).any(dim=0).flatten()
            seen[name] = seen_O | seen.get(name, torch.zeros_like(seen_O))
    removed = 0
    for name, seen_O in seen.items():
        layer = layers[name]
        matrix_OI = to_matrix(layer).clone()
        for neuron in (~seen_O & (matrix_OI != 0).any(dim=1)).nonzero().flatten().tolist():
            if not _is_read(network, layers, (name, neuron), pixels_BCHW[:1]):
                removed += int((matrix_OI[neuron] != 0).sum())
                matrix_OI[neuron] = 0
                if layer.bias is not None:
                    layer.bias[neuron] = 0
        set_matrix(layer, matrix_OI)
    return removed


def _is_read(network: Network, layers: Mapping[str, Layer], neuron: tuple[str, int], image_1CHW: Tensor) -> bool:
    """Return True if a nonzero weight or the logits depend on the neuron, which is poisoned."""
    reads: list[bool] = []

    def hook(name: str, layer: Layer, inputs: Tensor, outputs: Tensor) -> Tensor:
        if inputs.isnan().any():
            poisoned_GI = next(input_rows(name, layer, inputs, 1))[0].isnan().any(dim=1)
            nonzero_GI = (to_matrix(layer) != 0).unflatten(0, (groups_of(layer), -1)).any(1)
            reads.append(bool((poisoned_GI & nonzero_GI).any()))
        outputs = outputs.nan_to_num()
        if name == neuron[0]:
            outputs.movedim(1 if isinstance(layer, nn.Conv2d) else -1, 0)[neuron[1]] = torch.nan
        return outputs

    with _with_outputs_replaced(layers, hook):
        logits_1K = network.logits(image_1CHW)
    return any(reads) or bool(logits_1K.isnan().any())
