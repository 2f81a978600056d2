"""Biases of the layers that read heads and channels: existing ones, and ones that the config can add."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.units import KindName
from core.engine.models.folder import ModelFolder
from core.engine.models.tensors import to_out_in


@dataclass(frozen=True)
class OutputBiases:
    """Kinds of units whose reading layer has a bias or can get one.

    `settings` are the config's settings that turn biases on, `added` the largest number of parameters they add.
    """

    kinds: frozenset[KindName]
    settings: list[str]
    added: int


def output_biases(folder: ModelFolder, kinds: Collection[KindName]) -> OutputBiases:
    """Return the settings that add biases to the readers of these kinds of units, where possible."""
    family = folder.family

    def has_bias(linear: str) -> bool:
        names = (f"{family.blocks}.{layer}.{linear}.bias" for layer in range(folder.description.layers))
        return any(name in folder.tensors for name in names)

    sublayers = {kind: sublayer for kind in kinds if (sublayer := family.sublayer_of(kind)) is not None}
    settings = {each.bias for each in sublayers.values() if each.bias is not None and not has_bias(each.output)}
    given = [name for each in family.sublayers if each.bias in settings for group in each.groups for name in group]
    without_bias = [name for name in given if not has_bias(name)]
    added = {f"{family.blocks}.{layer}.{name}" for layer in range(folder.description.layers) for name in without_bias}
    return OutputBiases(
        frozenset(kind for kind, each in sublayers.items() if has_bias(each.output) or each.bias is not None),
        sorted(settings),
        sum(each.out_features for each in folder.description.linears if each.name in added),
    )


def with_biases(family: Architecture, tensors: Mapping[str, Tensor], block: nn.Module) -> dict[str, Tensor]:
    """Return a block's tensors, and the biases of `block` that they lack, at zero; `block` may be narrower."""
    biases = {}
    for name, _ in block.named_parameters():
        if name not in tensors:
            weight = to_out_in(tensors[f"{name.removesuffix('.bias')}.weight"], family)
            biases[name] = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
    return {**tensors, **biases}
