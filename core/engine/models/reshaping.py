"""Resizing of a classifier's modules to its tensors' shapes, after filters or channels were removed."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur_wire.errors import UnusableModel


def reshape_modules(model: nn.Module, state: Mapping[str, Tensor], groups: Mapping[str, int]) -> None:
    """Resize every convolution, linear layer, norm and scale of `model` to the tensors of `state`, in place.

    `state` maps parameter names to tensors, for their shapes only. `groups` are the numbers of groups of grouped
    convolutions where they changed, by module name. Raises UnusableModel where a tensor's kernel or number of
    dimensions differs.
    """
    for name, module in model.named_modules():
        tensor = state.get(f"{name}.weight")
        weight = getattr(module, "weight", None)
        if tensor is None or not isinstance(weight, Tensor) or tensor.shape == weight.shape:
            continue
        if tensor.dim() != weight.dim() or tensor.shape[2:] != weight.shape[2:]:
            raise UnusableModel(
                f"{name}.weight has shape {list(tensor.shape)}, which no number of channels makes of "
                f"{list(weight.shape)}",
                param="model",
            )
        _resize(module, tensor.shape, groups.get(name))
    for name, parameter in list(model.named_parameters()):
        tensor = state.get(name)
        if tensor is not None and tensor.dim() == parameter.dim() == 1 and tensor.shape != parameter.shape:
            owner, _, last = name.rpartition(".")  # scale of the channels, as a parameter of the module itself
            scale = nn.Parameter(parameter.new_empty(tensor.shape), requires_grad=parameter.requires_grad)
            model.get_submodule(owner)._parameters[last] = scale


def _resize(module: nn.Module, shape: torch.Size, groups: int | None) -> None:
    for name, parameter in list(module._parameters.items()):
        if parameter is not None:
            size = shape if name == "weight" else shape[:1]
            module._parameters[name] = nn.Parameter(parameter.new_empty(size), requires_grad=parameter.requires_grad)
    for name, buffer in list(module._buffers.items()):
        if buffer is not None and buffer.dim():
            module._buffers[name] = buffer.new_empty(shape[:1])
    if isinstance(module, nn.Conv2d):
        module.groups = groups or module.groups
        module.out_channels, module.in_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        module.num_features = shape[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(shape)


def changed_groups(model: nn.Module, original: nn.Module) -> dict[str, int]:
    """Return the number of groups of the convolutions where it differs from `original`, by module name."""
    before = {name: each.groups for name, each in original.named_modules() if isinstance(each, nn.Conv2d)}
    return {
        name: each.groups
        for name, each in model.named_modules()
        if isinstance(each, nn.Conv2d) and each.groups != before.get(name)
    }
