"""Masked models: the dense model in which what was removed gives nothing, made from the weights of both alone.

The units that stayed are known by their weights, which are random: no row, column or block is there twice. So nothing
of the engine is asked what it removed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
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
    shrunk += _without_channels_of_experts(dense, modules)
    if not shrunk:
        raise Unmatched("no linear layer reads fewer features than before")


def _without_channels_of_experts(dense: PreTrainedModel, modules: dict[str, nn.Module]) -> int:
    """Zero what the second matrices of experts multiply of the channels they lost; return how many experts lost any.

    All experts of a module lose as many. The first matrix holds of each channel that stays what the dense one does.
    """
    shrunk = 0
    for name, module in dense.named_modules():
        own = {each: stack for each, stack in module.named_parameters(recurse=False) if stack.ndim == 3}
        smaller = {each: modules[name].get_parameter(each) for each in own if name in modules}
        for each, left in smaller.items():
            sides = [side for side in (1, 2) if own[each].shape[side] != left.shape[side]]
            if len(sides) > 1:
                raise Unmatched(f"{name}.{each} lost inputs and outputs at once")
            for matrix, kept in zip(own[each].data, left.data, strict=True) if sides else ():
                rows, kept_rows = (matrix, kept) if sides == [1] else (matrix.T, kept.T)
                places = _kept(rows, kept_rows, f"{name}.{each}")
                if each == "down_proj":
                    gone = torch.ones(len(rows), dtype=torch.bool)
                    gone[places] = False
                    rows[gone] = 0
                    shrunk += 1
    return shrunk


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


def without_experts(dense: PreTrainedModel, cut: PreTrainedModel) -> None:
    """Make the experts that a cut model lacks ones that no token goes to.

    The router's outputs for them are −∞, and so are the vectors with an entry for each. An expert is known by its
    matrices, which stack along the first dimension.
    """
    parameters = dict(cut.state_dict())
    gone: dict[int, Tensor] = {}
    for name, module in dense.named_modules():
        stacks = {own: each for own, each in module.named_parameters(recurse=False) if each.ndim == 3}
        shrunk = [own for own, each in stacks.items() if parameters[f"{name}.{own}"].shape[0] != each.shape[0]]
        if not shrunk:
            continue
        lost = {own: _lost(stacks[own], parameters[f"{name}.{own}"], name) for own in shrunk}
        first = lost[shrunk[0]]
        if shrunk != list(stacks) or not all(torch.equal(first, each) for each in lost.values()):
            raise Unmatched(f"{name} lost other experts of one matrix than of another")
        mixture = dense.get_submodule(name.rpartition(".")[0])
        inner = {id(each) for each in module.parameters()}
        for own, each in mixture.state_dict(keep_vars=True).items():
            smaller = parameters[f"{name.rpartition('.')[0]}.{own}"]
            if id(each) in inner or each.shape == smaller.shape:
                continue
            if not torch.equal(each[~first], smaller):
                raise Unmatched(f"{own} holds other entries than those of the experts that stayed")
            if each.ndim == 2:
                gone[each.data_ptr()] = first
            else:
                each.data[first] = -torch.inf
    if not gone:
        raise Unmatched("no router has fewer outputs than before")
    forward = dense.forward

    def masked(*arguments: Any, **keywords: Any) -> Any:
        with _Masking(gone):
            return forward(*arguments, **keywords)

    dense.forward = masked


def _lost(stack: Tensor, left: Tensor, name: str) -> Tensor:
    """Return a mask of the members of a stack that another one lacks."""
    kept = _kept(stack.flatten(1), left.flatten(1), name)
    if not torch.equal(kept, kept.sort().values):
        raise Unmatched(f"{name} has its experts in another order")
    lost = torch.ones(len(stack), dtype=torch.bool)
    lost[kept] = False
    return lost


class _Masking(TorchFunctionMode):
    """Mode in which products with some matrices, by their memory, have −∞ in the outputs that are marked."""

    def __init__(self, gone: dict[int, Tensor]) -> None:
        super().__init__()
        self._gone = gone

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        if function is nn.functional.linear and arguments[1].data_ptr() in self._gone:
            return result.masked_fill(self._gone[arguments[1].data_ptr()], -torch.inf)
        return result


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
