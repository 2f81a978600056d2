"""Masked models: the dense model in which what was removed gives nothing, made from the weights of both alone.

The units that stayed are known by their weights, which are random: no row, column or block is there twice. So nothing
of the engine is asked what it removed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


class Unmatched(Exception):
    """A cut model that is not the dense one without some of its rows, columns and blocks."""


def without_units(dense: PreTrainedModel, cut: PreTrainedModel) -> None:
    """Make the units that a cut model lacks give nothing: zero the columns that read them, norm only what is left."""
    modules = dict(cut.named_modules())
    shrunk = 0
    for name, module in dense.named_modules():
        weight, other = getattr(module, "weight", None), getattr(modules.get(name), "weight", None)
        if not isinstance(weight, Tensor) or not isinstance(other, Tensor) or weight.shape == other.shape:
            continue
        if isinstance(module, nn.Linear | Conv1D):
            columns, kept_columns = (weight.T, other.T) if isinstance(module, nn.Linear) else (weight, other)
            if columns.shape[0] != kept_columns.shape[0]:
                kept = _kept(columns, kept_columns, name)
                gone = torch.ones(len(columns), dtype=torch.bool)
                gone[kept] = False
                with torch.no_grad():
                    (weight.T if isinstance(module, nn.Linear) else weight)[gone] = 0
                shrunk += 1
        elif weight.ndim == 1:
            _norm_what_is_left(module, modules[name], _kept(weight[:, None], other[:, None], name))
    if not shrunk:
        raise Unmatched("no linear layer reads fewer features than before")


def without_layers(dense: PreTrainedModel, cut: PreTrainedModel, blocks: str) -> None:
    """Make the blocks that a cut model lacks return their input."""
    left = [list(block.parameters()) for block in _blocks(cut, blocks)]
    gone = []
    for block in _blocks(dense, blocks):
        own = list(block.parameters())
        if left and len(own) == len(left[0]) and all(map(torch.equal, own, left[0])):
            left.pop(0)
        else:
            gone.append(block)
    if left or not gone:
        raise Unmatched(f"{len(gone)} blocks are gone, {len(left)} of the cut model are none of the dense one")
    for block in gone:
        block.forward = _passing_on(block.forward)


def _blocks(model: PreTrainedModel, name: str) -> nn.ModuleList:
    found = model.get_submodule(name)
    assert isinstance(found, nn.ModuleList)
    return found


def _kept(rows: Tensor, kept: Tensor, name: str) -> Tensor:
    """Return the places of the kept rows among all."""
    if rows.shape[1] != kept.shape[1]:
        raise Unmatched(f"{name} lost inputs and outputs at once")
    equal = (rows[None] == kept[:, None]).all(-1)
    if not (equal.sum(1) == 1).all():
        raise Unmatched(f"{name} holds what the dense model does not")
    return equal.int().argmax(1)


def _norm_what_is_left(norm: nn.Module, smaller: nn.Module, kept: Tensor) -> None:
    """Make a norm over all units one over those that stayed, and give zeros for the others."""

    def forward(features: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        scattered = torch.zeros_like(features)
        scattered[..., kept] = smaller(features[..., kept], *arguments, **keywords)
        return scattered

    norm.forward = forward


def _passing_on(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return the forward of a block that leaves the hidden states as they are."""

    def passing_on(*arguments: Any, **keywords: Any) -> Any:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        before = hidden.clone()
        output = forward(*arguments, **keywords)
        return (before, *output[1:]) if isinstance(output, tuple | list) else before

    return passing_on
