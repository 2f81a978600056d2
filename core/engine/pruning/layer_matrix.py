"""Convolutions and linear layers as matrices: the weight [outputs, kernel x inputs], and the rows it multiplies.

A convolution is a linear layer on the patches of its input. Within a row, kernel positions are outer and input channels
inner, so that n:m runs along the channels. A grouped convolution is one linear layer for each of its groups, each with
its own outputs and inputs; an ordinary convolution, or a linear layer, is one group.

Shapes: B images, G groups, L positions at which the layer is applied, I inputs of a row, O outputs of a group.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from secateur_wire.errors import UnsupportedArchitecture

Layer = nn.Linear | nn.Conv2d

CHUNK = 2**24
"""Largest number of values that are unfolded at a time, unless a single image has more."""


def layer_of(model: nn.Module, name: str) -> Layer:
    """Return a prunable layer by name; raises UnsupportedArchitecture unless it is a convolution or linear layer."""
    module = model.get_submodule(name)
    if not isinstance(module, nn.Linear | nn.Conv2d):
        raise UnsupportedArchitecture(
            f"{name} is a {type(module).__name__}, neither a linear layer nor a convolution: skip it "
            "(parameters.skip_modules)",
            param="model",
        )
    return module


def groups_of(layer: Layer) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def to_matrix(layer: Layer) -> Tensor:
    """Return the weight as a float32 matrix [outputs, kernel x inputs], which must not be changed."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.Conv2d):
        weight = weight.permute(0, 2, 3, 1).flatten(1)
    return weight.float()


def as_weight(layer: Layer, matrix_OI: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        outputs, inputs, height, width = layer.weight.shape
        return matrix_OI.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)
    return matrix_OI


@torch.no_grad()
def set_matrix(layer: Layer, matrix_OI: Tensor) -> None:
    layer.weight.copy_(as_weight(layer, matrix_OI).clone())  # the matrix may be a view of the weight


def input_rows(name: str, layer: Layer, inputs: Tensor, images: int) -> Iterator[Tensor]:
    """Yield X_BGLI, the rows the layer's matrix multiplies for a batch's `inputs`, a few images at a time.

    `images` is their number: some networks put windows of an image into the batch dimension. Raises
    UnsupportedArchitecture for a subclass of convolution with a forward of its own.
    """
    if isinstance(layer, nn.Linear):
        X_BLI = inputs.reshape(images, -1, inputs.shape[-1])
        for part_BLI in X_BLI.split(rows_at_once(layer, inputs, images)):
            yield part_BLI.unsqueeze(1)
        return
    if type(layer).forward is not nn.Conv2d.forward:
        raise UnsupportedArchitecture(
            f"{name} is a {type(layer).__name__}, a convolution with its own forward function, so it is not known "
            "what its weights multiply: skip it (parameters.skip_modules)",
            param="model",
        )
    at_once = rows_at_once(layer, inputs, images)
    for part in inputs.reshape(images, -1, *inputs.shape[1:]).split(at_once):
        yield _patches(layer, part)


def rows_at_once(layer: Layer, inputs: Tensor, images: int) -> int:
    """Return the number of a batch's images whose rows are computed at a time; `images` are in the batch."""
    values = inputs.numel() // images
    if isinstance(layer, nn.Conv2d):
        height, width = layer.kernel_size
        values = inputs[0].numel() * height * width // (layer.stride[0] * layer.stride[1]) * (len(inputs) // images)
    return max(1, CHUNK // max(1, values))


def _patches(layer: nn.Conv2d, inputs_BNCHW: Tensor) -> Tensor:
    images = len(inputs_BNCHW)
    maps = inputs_BNCHW.flatten(0, 1)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = nn.functional.pad(maps, layer._reversed_padding_repeated_twice, mode=mode)
    flat = nn.functional.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    channels = layer.in_channels // layer.groups
    patches_NGCKL = flat.unflatten(1, (layer.groups, channels, -1))
    patches_NGLI = patches_NGCKL.permute(0, 1, 4, 3, 2).flatten(3)
    return _joined_positions(patches_NGLI, images)


def output_rows(layer: Layer, outputs: Tensor, images: int) -> Tensor:
    """Return Y_BGLO: outputs, or gradients in them, in the order of the rows."""
    if isinstance(layer, nn.Linear):
        return outputs.reshape(images, 1, -1, outputs.shape[-1])
    rows_NGLO = outputs.flatten(2).unflatten(1, (layer.groups, -1)).transpose(2, 3)
    return _joined_positions(rows_NGLO, images)


def _joined_positions(rows_NGLX: Tensor, images: int) -> Tensor:
    """Concatenate the positions of all N that belong to one image: [B, G, L, X]."""
    rows_BNGLX: Tensor = rows_NGLX.unflatten(0, (images, -1))
    return rows_BNGLX.transpose(1, 2).flatten(2, 3)
