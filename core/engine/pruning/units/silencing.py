"""Silenced units: a dense model that runs as if it had only what is kept of it, to compare a cut one with."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.unit_kind import UnitKind
from core.engine.models.folder import ModelFolder
from core.engine.models.hooks import removed_after
from core.engine.pruning.units.removal import KeptUnits, UnitSet, layer_unit_sets
from core.engine.pruning.units.unit_slices import StackSlice, UnitSlice


@contextmanager
def silenced(opened: ModelFolder, dense: PreTrainedModel, kinds: Sequence[UnitKind], kept: KeptUnits) -> Iterator[None]:
    """Run the dense model, inside the context, as if it had only what is kept."""
    family, structure = opened.family, opened.description.structure
    assert structure is not None
    handles: list[RemovableHandle] = []
    with ExitStack() as zeroed:
        for layer, block in enumerate(dense.get_submodule(family.blocks).children()):
            if layer not in kept.layers:
                handles.append(block.register_forward_hook(_pass_by, with_kwargs=True))
                continue
            for each in layer_unit_sets(family, structure, layer, kinds):
                units = kept.layers[layer].get(each.kind)
                if units is not None:
                    handles += _silencing(block, each, torch.tensor(units), family)
                    if isinstance(each.reading_slice, StackSlice):
                        stack = block.get_parameter(each.output)
                        zeroed.enter_context(each.reading_slice.zeroed(stack, torch.tensor(units)))
        with removed_after(handles):
            yield


def _silencing(block: nn.Module, units: UnitSet, kept: Tensor, family: Architecture) -> Iterator[RemovableHandle]:
    """Set what the reader of units reads of those not kept to zero; norms over all of them see the kept alone."""
    for reading in units.reading_slices:
        if not isinstance(reading, StackSlice):
            yield block.get_submodule(reading.linear).register_forward_pre_hook(_zeroing(reading.features(kept)))
    modules = dict(block.named_modules())
    for each in units.slices:
        norm = modules.get(each.linear)
        if each.name.endswith(".weight") and each.linear not in family.linears and norm is not None:
            weight = norm.get_parameter("weight")
            if weight.dim() == 1 and len(weight) == sum(size * units.units + rest for size, rest in each.runs):
                yield norm.register_forward_hook(_norming(norm, each, kept))


def _zeroing(kept_F: Tensor) -> Callable[..., Any]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mask = torch.zeros(arguments[0].shape[-1])
        mask[kept_F] = 1
        return (arguments[0] * mask, *arguments[1:])

    return hook


def _norming(norm: nn.Module, unit_slice: UnitSlice, kept: Tensor) -> Callable[..., Any]:
    kept_F = unit_slice.features(kept)
    narrow = copy.deepcopy(norm)
    for name, parameter in norm.named_parameters():
        setattr(narrow, name, nn.Parameter(parameter[kept_F], requires_grad=False))
    if isinstance(narrow, nn.LayerNorm | nn.RMSNorm):
        narrow.normalized_shape = (len(kept_F),)

    def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        normed = torch.zeros_like(output)
        normed[..., kept_F] = narrow(arguments[0][..., kept_F], *arguments[1:])
        return normed

    return hook


def _pass_by(
    block: nn.Module, arguments: tuple[Tensor, ...], keywords: Mapping[str, Tensor], output: Tensor | tuple[Tensor, ...]
) -> Tensor | tuple[Tensor, ...]:
    hidden = arguments[0] if arguments else keywords["hidden_states"]
    return hidden if isinstance(output, Tensor) else type(output)((hidden, *output[1:]))
