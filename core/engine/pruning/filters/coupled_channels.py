"""Coupled channels of a network: the cost after a removal, the removal, and the network with zeroed channels."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.evaluation.flops import count_flops
from core.engine.models.reshaping import reshape_modules
from core.engine.pruning.filters.channel_slices import Group
from core.engine.pruning.filters.dependency_graph import coupled_groups
from secateur_wire.errors import UnsupportedArchitecture

_TOLERANCE = 1e-3
"""Largest difference of logits, relative to the largest logit, that another order of summation may cause."""
_CHANNELWISE = (
    "Add",
    "Mul",
    "Relu",
    "Gelu",
    "Tanh",
    "Permute",
    "Transpose",
    "T",
    "Clone",
    "MaxPool2DWithIndices",
    "AvgPool2D",
)
"""Operations that treat channels alike; error messages do not name them as possible causes."""

Units = Mapping[int, Sequence[int]]
"""Units of groups, by the group's index."""


@dataclass(frozen=True)
class CoupledChannels:
    """Removable groups of `model`, those nearest to the image first.

    `positions` is the number of places (pixels, tokens) at which each convolution or linear layer is applied to one
    image, and `flops` the operations of the entire model (`core.engine.evaluation.flops`). After a removal the groups
    are out of date: build them again.
    """

    model: nn.Module
    groups: tuple[Group, ...]
    positions: Mapping[str, int]
    flops: int

    @classmethod
    def of(cls, model: nn.Module, image_shape: Sequence[int], *, is_checked: bool = False) -> "CoupledChannels":
        """Find the groups of a network with logits `model(pixel_values=images_BCHW).logits`, [batch, classes].

        `image_shape` is (channels, height, width). The coupling is checked on copies: removing a unit must have the
        same effect as zeroing it; without `is_checked` that check is skipped. Raises UnsupportedArchitecture naming the
        layer or operation that cannot be coupled.
        """
        image_1CHW = torch.randn(1, *image_shape, generator=torch.Generator().manual_seed(0))
        image_1CHW = image_1CHW.to(next(model.parameters()).device)
        coupled = tuple(coupled_groups(model, image_1CHW))
        groups = cls(model, coupled, _positions(model, image_1CHW), count_flops(model, image_shape))
        if not is_checked:
            groups._check(image_1CHW)
        return groups

    def among(self, layers: Sequence[str]) -> "CoupledChannels":
        """Return only the groups whose writers are all among these layers."""
        return replace(
            self, groups=tuple(each for each in self.groups if all(member.name in layers for member in each.writers))
        )

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    def parameters_after(self, removed: Sequence[int]) -> int:
        """Return the number of parameters with this many units of each group removed."""
        return self.parameters - sum(
            each.numel() - math.prod(shape)
            for name, shape in self._shapes(removed).items()
            if (each := self._parameter(name)) is not None
        )

    def flops_after(self, removed: Sequence[int]) -> int:
        """Return the operations for one image with this many units of each group removed."""
        left = self.flops
        for name, shape in self._shapes(removed).items():
            layer = name.removesuffix(".weight")
            if layer in self.positions and (weight := self._parameter(name)) is not None:
                left -= 2 * self.positions[layer] * (weight.numel() - math.prod(shape))
        for group, count in zip(self.groups, removed, strict=True):
            # attention multiplies every token with every other: queries with keys, and weights with values
            if group.kind == "heads":
                head_size = group.leaders[0].channels_UK.shape[1]
                left -= count * 4 * self.positions[group.leaders[0].name] ** 2 * head_size
        return left

    def _shapes(self, removed: Sequence[int]) -> dict[str, list[int]]:
        """Return the shapes of the tensors that lose units, by name."""
        shapes: dict[str, list[int]] = {}
        for group, count in zip(self.groups, removed, strict=True):
            for each in group.slices if count else ():
                parameter = self._parameter(each.tensor)
                if parameter is not None:
                    shape = shapes.setdefault(each.tensor, list(parameter.shape))
                    shape[each.dim] -= count * each.indices_UK.shape[1]
        return shapes

    def _parameter(self, name: str) -> nn.Parameter | None:
        return self.model.get_submodule(_owner(name))._parameters.get(name.rpartition(".")[2])

    def remove(self, chosen: Units) -> None:
        """Remove these units from the model, in place; at least one unit of each group must stay."""
        state = self.model.state_dict()
        dropped: dict[tuple[str, int], list[Tensor]] = {}
        for place, units in chosen.items():
            group = self.groups[place]
            assert len(set(units)) < group.units
            for each in group.slices if units else ():
                dropped.setdefault((each.tensor, each.dim), []).append(each.indices_UK[list(units)].flatten())
        smaller: dict[str, Tensor] = {}
        for (name, dim), indices in dropped.items():
            tensor = smaller.get(name, state[name])
            is_kept = torch.ones(tensor.shape[dim], dtype=torch.bool)
            is_kept[torch.cat(indices)] = False
            smaller[name] = tensor.index_select(dim, is_kept.nonzero()[:, 0].to(tensor.device))
        depthwise = {
            member.name: len(smaller[f"{member.name}.weight"])
            for place, units in chosen.items()
            for member in self.groups[place].members
            if member.side == "both" and units
        }
        owners = {_owner(name) for name in smaller}  # their other tensors, such as biases, are created again too
        smaller = {name: each.clone() for name, each in state.items() if _owner(name) in owners} | smaller
        reshape_modules(self.model, smaller, depthwise)
        self.model.load_state_dict(smaller, strict=False)

    @contextmanager
    def gated(self, gates: Sequence[Tensor | None]) -> Iterator[None]:
        """Multiply, inside the context, the channels that layers read of each group by its gates.

        Gates are [units], or [batch, units] for gates of every image; None leaves a group unchanged.
        """
        readers: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for group, gate in zip(self.groups, gates, strict=True):
            for member in group.readers if gate is not None else ():
                assert gate is not None
                readers.setdefault(member.name, []).append((member.channels_UK, gate))
        hooks = [
            self.model.get_submodule(name).register_forward_pre_hook(partial(_scale_inputs, each))
            for name, each in readers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def silenced(self, chosen: Units) -> Iterator[None]:
        """Zero these units, inside the context, wherever they are read, as if they were removed.

        The effect equals that of removal unless a layer-norm reads them (`Group.is_exact`).
        """
        gates: list[Tensor | None] = [None] * len(self.groups)
        device = next(self.model.parameters()).device
        for place, units in chosen.items():
            gate_U = torch.ones(self.groups[place].units, device=device)
            gate_U[list(units)] = 0
            gates[place] = gate_U
        with self.gated(gates):
            yield

    @torch.no_grad()
    def _check(self, image_1CHW: Tensor) -> None:
        """Check all exact groups together and all others together; check each alone only to name the one that fails."""
        places = range(len(self.groups))
        exact = [place for place in places if self.groups[place].is_exact]
        others = [place for place in places if not self.groups[place].is_exact]
        if not (self._is_coupled(exact, image_1CHW) and self._is_coupled(others, image_1CHW)):
            for place in places:
                if not self._is_coupled([place], image_1CHW):
                    self._refuse(self.groups[place])
            raise UnsupportedArchitecture(
                f"the channels of {type(self.model).__name__} depend on one another in a way that cannot be determined",
                param="model",
            )

    def _is_coupled(self, places: Sequence[int], image_1CHW: Tensor) -> bool:
        chosen = {place: sorted({0, (self.groups[place].units - 1) // 2}) for place in places}
        smaller = replace(self, model=copy.deepcopy(self.model))
        smaller.remove(chosen)
        try:
            removed_1K = smaller.model(pixel_values=image_1CHW).logits
        except (AssertionError, IndexError, RuntimeError, ValueError):
            return False
        with self.silenced(chosen):
            silenced_1K = self.model(pixel_values=image_1CHW).logits
        if removed_1K.shape != silenced_1K.shape:
            return False
        if not all(self.groups[place].is_exact for place in places):
            return True
        difference = (removed_1K - silenced_1K).abs().max()
        return bool(difference <= _TOLERANCE * silenced_1K.abs().max().clamp(min=_TOLERANCE))

    def _refuse(self, group: Group) -> None:
        mixing = [name for name in group.operations if name not in _CHANNELWISE]
        raise UnsupportedArchitecture(
            f"the channels of {group.name} cannot be removed one by one: before "
            f"{', '.join(member.name for member in group.readers) or 'the result'}, an operation mixes them or "
            f"depends on their number ({', '.join(mixing or group.operations) or 'unknown to the graph'})",
            param="model",
        )


def _owner(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _scale_inputs(parts: list[tuple[Tensor, Tensor]], layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a layer's inputs times the gates: [batch, channels, …] for a convolution, else [batch, …, channels]."""
    tensor, *rest = inputs
    is_convolution = isinstance(layer, nn.Conv2d)
    channels = tensor.shape[1 if is_convolution else -1]
    gates = [gate for _, gate in parts]
    one = torch.ones(*gates[0].shape[:-1], 1, dtype=tensor.dtype, device=tensor.device)
    gate_of_channel_C = torch.full((channels,), sum(gate.shape[-1] for gate in gates), device=tensor.device)
    first = 0
    for channels_UK, gate in parts:
        units_U = torch.arange(first, first + gate.shape[-1], device=tensor.device)
        gate_of_channel_C[channels_UK] = units_U[:, None]
        first += gate.shape[-1]
    factor = torch.cat([*gates, one], dim=-1)[..., gate_of_channel_C]
    if is_convolution:
        factor = factor[..., None, None]
    elif factor.dim() == 2:
        factor = factor.view(len(factor), *[1] * (tensor.dim() - 2), channels)
    return (tensor * factor, *rest)


@torch.no_grad()
def _positions(model: nn.Module, image_1CHW: Tensor) -> dict[str, int]:
    positions: dict[str, int] = {}

    def see(name: str, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        positions[name] = positions.get(name, 0) + output.numel() // len(layer.get_parameter("weight"))

    hooks = [
        layer.register_forward_hook(partial(see, name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    model(pixel_values=image_1CHW)
    for hook in hooks:
        hook.remove()
    return positions
