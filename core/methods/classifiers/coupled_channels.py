"""Channels of a network that can only be removed together, found and removed by torch-pruning (arXiv:2301.12900).

Its pruner traces the network with one image. This module names the units of each group, counts what is left, and checks
the coupling: removing a unit must have the same effect as zeroing it.
"""

import copy
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from core.engine.evaluation.flops import count_flops
from core.engine.models.hooks import removed_after
from secateur_wire.errors import UnsupportedArchitecture

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_TOLERANCE = 1e-3
"""Largest difference of logits, relative to the largest logit, that another order of summation may cause."""
_CHANNELWISE = (
    "Add", "Mul", "Relu", "Gelu", "Tanh", "Permute", "Transpose", "T", "Clone", "MaxPool2DWithIndices", "AvgPool2D",
)  # fmt: skip
"""Operations that treat channels alike; error messages do not name them as possible causes."""

Units = Mapping[int, Sequence[int]]
"""Units of groups, by the group's index."""


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together, in `units` that can be removed one by one.

    A unit is a filter, an attention head, or a channel between two linear layers; in a grouped convolution it is one
    channel of each of its groups, so that they stay alike. `unit_C` is the unit of each channel of the group's root in
    torch-pruning's `traced` group. `writers` are the layers that lose outputs, and `leaders` those nearest to the
    image: in a residual stage the shortcut (Li 2016 lets it decide), in attention the three projections. `readers` are
    the layers that lose inputs, with the channels [units, K] that they read of each unit. `slices` are the tensors that
    shrink: their names, dimension, and indices a unit. `is_exact`: removing a unit has the same effect on its readers
    as zeroing it. A layer-norm rules that out, because the unit is part of its mean. `operations` are those that the
    channels pass through between layers.
    """

    name: str
    kind: Literal["filters", "heads", "channels"]
    units: int
    unit_C: Tensor
    traced: Any
    writers: tuple[str, ...]
    leaders: tuple[str, ...]
    readers: tuple[tuple[str, Tensor], ...]
    slices: tuple[tuple[str, int, int], ...]
    is_exact: bool
    operations: tuple[str, ...]

    @property
    def size(self) -> int:
        """Return the number of root channels in a unit."""
        return len(self.unit_C) // self.units


@dataclass(frozen=True)
class CoupledChannels:
    """Removable groups of `model`, those nearest to the image first.

    `positions` is the number of places (pixels, tokens) at which each convolution or linear layer is applied to one
    image, and `flops` the operations of the entire model (`core.engine.evaluation.flops`). After a removal the groups
    are out of date: build them again.
    """

    model: nn.Module
    pruner: Any
    groups: tuple[Group, ...]
    positions: Mapping[str, int]
    flops: int

    @classmethod
    def of(cls, model: nn.Module, image_shape: Sequence[int], *, is_checked: bool = False) -> "CoupledChannels":
        """Find the groups of a network with logits `model(pixel_values=images_BCHW).logits`, [batch, classes].

        `image_shape` is (channels, height, width). The network's outputs and the image's channels are never in a group,
        and neither is the width of a transformer, which its tokens and positions share. The coupling is checked on a
        copy; without `is_checked` that check is skipped. Raises UnsupportedArchitecture naming the layer or operation
        that cannot be coupled.
        """
        from torch_pruning.pruner import BasePruner  # a library of workers, needed only to remove channels

        image_1CHW = torch.randn(1, *image_shape, generator=torch.Generator().manual_seed(0))
        image_1CHW = image_1CHW.to(next(model.parameters()).device)
        head_sizes = _head_sizes(model)
        projections = {model.get_submodule(name): size for name, size in head_sizes.items()}
        traced: list[Any] = []
        try:
            with torch.enable_grad(), warnings.catch_warnings(action="ignore"):
                pruner = BasePruner(
                    model,
                    image_1CHW,
                    traced.append,  # every group's importance is None, so that the first step removes nothing
                    global_pruning=True,
                    num_heads={
                        layer: layer.get_parameter("weight").shape[0] // size for layer, size in projections.items()
                    },
                    prune_num_heads=True,
                    prune_head_dims=False,
                    in_channel_groups={},
                    out_channel_groups={},
                    forward_fn=lambda model, image_1CHW: model(pixel_values=image_1CHW).logits,
                )
                pruner.step()
        except Exception as error:  # the library raises exceptions of any type
            raise UnsupportedArchitecture(
                f"the channels of {type(model).__name__} cannot be traced: {str(error)[:300]}", param="model"
            ) from error
        names = {each: name for name, each in (*model.named_modules(), *model.named_parameters())}
        order = {name: place for place, name in enumerate(names.values())}
        depths = _depths(list(pruner.DG.module2node.values()))
        coupled = [_group(pruner.DG, each, names, depths, head_sizes) for each in traced]
        nearest = sorted((each for each in coupled if each), key=lambda pair: (pair[0], order[pair[1].leaders[0]]))
        groups = tuple(group for _, group in nearest if group.units > 1)
        channels = cls(model, pruner, groups, _positions(model, image_1CHW), count_flops(model, image_shape))
        if not is_checked:
            channels._check(image_1CHW)
        return channels

    def among(self, layers: Sequence[str]) -> "CoupledChannels":
        """Return only the groups whose writers are all among these layers."""
        return replace(self, groups=tuple(each for each in self.groups if {*each.writers} <= {*layers}))

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    def after(self, removed: Sequence[int]) -> tuple[int, int]:
        """Return the parameters, and the operations for one image, with this many units of each group removed."""
        shapes = {name: list(each.shape) for name, each in self.model.named_parameters()}
        flops = self.flops
        for group, count in zip(self.groups, removed, strict=True):
            for name, dim, width in group.slices:
                shapes[name][dim] -= count * width
            if group.kind == "heads":  # every token with every other: queries with keys, and weights with values
                flops -= count * 4 * self.positions[group.leaders[0]] ** 2 * group.size
        for layer, positions in self.positions.items():
            weight = self.model.get_parameter(f"{layer}.weight")
            flops -= 2 * positions * (weight.numel() - math.prod(shapes[f"{layer}.weight"]))
        return sum(math.prod(shape) for shape in shapes.values()), flops

    def after_one(self, place: int) -> tuple[int, int]:
        """Return the parameters and operations without one unit of a group."""
        return self.after([int(place == each) for each in range(len(self.groups))])

    def remove(self, chosen: Units) -> None:
        """Remove these units from the model, in place; at least one unit of each group must stay.

        The pruner ranks all channels by an importance that is 0 for these units and 1 for the others, and removes as
        many channels and heads as are of importance 0.
        """
        removed = [len(chosen.get(place, ())) for place in range(len(self.groups))]
        if not any(removed):
            return
        importance, expected = {}, self.after(removed)[0]
        removed_units, all_units = Counter[str](), Counter[str]()
        for place, group in enumerate(self.groups):
            assert removed[place] < group.units
            keep_U = torch.ones(group.units)
            keep_U[list(chosen.get(place, ()))] = 0
            importance[group.traced[0].dep.target.module] = keep_U[group.unit_C]
            removed_units[group.kind] += removed[place]
            all_units[group.kind] += group.units
        # The places within a head are ranked among the channels, by their mean over heads, but never removed. Heads are
        # only removed where at least one channel is to go.
        ranked = sum(group.size if group.kind == "heads" else group.units for group in self.groups)
        channels = max(1, removed_units.total() - removed_units["heads"])
        pruner, kept = self.pruner, all_units["heads"] - removed_units["heads"]
        head_ratio = 1 - (kept + 0.5) / pruner.initial_total_heads if removed_units["heads"] else 0.0
        pruner.reset()
        pruner.importance = lambda traced: importance.get(traced[0].dep.target.module)
        pruner.per_step_pruning_ratio = [0.0, (channels - 0.5) / ranked]  # it keeps int((1 - ratio) x all)
        pruner.per_step_head_pruning_ratio = [0.0, head_ratio]
        pruner.step()
        for node in pruner.DG.module2node.values():  # they refer to each other and to weights
            node.inputs = node.outputs = node.dependencies = []
            node.grad_fn = None
        assert self.parameters == expected, "the pruner removed other channels"

    @contextmanager
    def gated(self, gates: Sequence[Tensor | None]) -> Iterator[None]:
        """Multiply, inside the context, the channels that layers read of each group by its gates.

        Gates are [units], or [batch, units] for gates of every image; None leaves a group unchanged.
        """
        readers: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for group, gate in zip(self.groups, gates, strict=True):
            for name, channels_UK in group.readers if gate is not None else ():
                assert gate is not None
                readers[name].append((channels_UK, gate))
        with removed_after(
            self.model.get_submodule(name).register_forward_pre_hook(partial(_scale_inputs, each))
            for name, each in readers.items()
        ):
            yield

    @contextmanager
    def silenced(self, chosen: Units) -> Iterator[None]:
        """Zero these units, inside the context, wherever they are read, as if they were removed.

        The effect equals that of removal unless a layer-norm reads them (`Group.is_exact`).
        """
        gates: list[Tensor | None] = [None] * len(self.groups)
        for place, units in chosen.items():
            gate_U = torch.ones(self.groups[place].units, device=next(self.model.parameters()).device)
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
            failing = [self.groups[place] for place in places if not self._is_coupled([place], image_1CHW)]
            if not failing:
                raise UnsupportedArchitecture(
                    f"the channels of {type(self.model).__name__} depend on one another in a way that cannot be "
                    "determined",
                    param="model",
                )
            group = failing[0]
            mixing = [name for name in group.operations if name not in _CHANNELWISE]
            raise UnsupportedArchitecture(
                f"the channels of {group.name} cannot be removed one by one: before "
                f"{', '.join(name for name, _ in group.readers) or 'the result'}, an operation mixes them or depends "
                f"on their number ({', '.join(mixing or group.operations) or 'unknown to the graph'})",
                param="model",
            )

    def _is_coupled(self, places: Sequence[int], image_1CHW: Tensor) -> bool:
        chosen = {place: sorted({0, (self.groups[place].units - 1) // 2}) for place in places}
        smaller = CoupledChannels.of(copy.deepcopy(self.model), image_1CHW.shape[1:], is_checked=True)
        try:
            smaller.remove(chosen)
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


def _head_sizes(model: nn.Module) -> dict[str, int]:
    """Return the channels per head of each projection that writes heads; raises for another layout of heads."""
    sizes: dict[str, int] = {}
    for name, module in model.named_modules():
        if not any(hasattr(module, each) for each in ("head_dim", "num_heads", "num_attention_heads")):
            continue
        children = dict(module.named_children())
        size = getattr(module, "head_dim", None)
        if not isinstance(size, int) or not all(isinstance(children.get(each), nn.Linear) for each in _PROJECTIONS):
            raise UnsupportedArchitecture(
                f"{name} ({type(module).__name__}) stores its heads in a way that cannot be taken apart; supported "
                f"is attention with {', '.join(_PROJECTIONS)}, each a linear layer, and head_dim",
                param="model",
            )
        sizes |= {f"{name}.{each}": size for each in _PROJECTIONS}
    return sizes


def _depths(nodes: list[Any]) -> dict[int, int]:
    """Return the number of convolutions and linear layers on the longest path from the image to each node, by its id.

    The node itself is included.
    """
    waiting = {id(node): len(node.inputs) for node in nodes}
    depths: Counter[int] = Counter()
    ready = [node for node in nodes if not node.inputs]
    while ready:
        node = ready.pop()
        depths[id(node)] += isinstance(node.module, nn.Conv2d | nn.Linear)
        for after in node.outputs:
            depths[id(after)] = max(depths[id(after)], depths[id(node)])
            waiting[id(after)] -= 1
            if not waiting[id(after)]:
                ready.append(after)
    return depths


def _group(
    graph: Any, traced: Any, names: Mapping[Any, str], depths: Mapping[int, int], head_sizes: Mapping[str, int]
) -> tuple[int, Group] | None:
    """Return a group and its distance from the image; None where its channels cannot be removed."""
    items: list[tuple[str, Any, Any, bool]] = []
    operations: list[str] = []
    for item in traced:
        node, writes = item.dep.target, graph.is_out_channel_pruning_fn(item.dep.handler)
        name = names.get(node.module)
        if not node.outputs and (name is None or writes):
            return None  # the network's outputs
        if name is None:
            operations.append(node.grad_fn.name().partition("Backward")[0])
            continue
        if isinstance(node.module, nn.Parameter) and node.module.dim() > 1 and max(node.module.shape[1:]) > 1:
            return None  # tokens and positions: the width of a transformer
        items.append((name, node, item, writes))
    sides = [_side(name, node.module, writes) for name, node, _, writes in items]
    writing = [(depths[id(node)], name) for (name, node, _, _), side in zip(items, sides, strict=True) if side == "out"]
    if not writing:
        return None  # a depthwise convolution of the image itself
    order = {name: place for place, name in enumerate(names.values())}
    depth = min(each for each, _ in writing)
    leaders = sorted((name for each, name in writing if each == depth), key=lambda name: order[name])
    channels_C = torch.arange(len(traced[0].idxs))
    convolutions = [node.module for _, node, _, _ in items if isinstance(node.module, nn.Conv2d)]
    parts = max((each.groups for each in convolutions if each.groups < each.out_channels), default=1)
    is_attention = leaders[0] in head_sizes
    unit_C = channels_C // head_sizes[leaders[0]] if is_attention else channels_C % (len(channels_C) // parts)
    units = int(unit_C.max()) + 1
    readers, slices = [], []
    for (name, node, item, _), side in zip(items, sides, strict=True):
        if side is None:
            continue
        by_unit_C = torch.argsort(unit_C[torch.tensor(item.root_idxs)], stable=True)
        channels_UK = torch.tensor(item.idxs)[by_unit_C].view(units, -1)
        width, layer = channels_UK.shape[1], node.module
        if side == "in":
            readers.append((name, channels_UK))
            slices.append((f"{name}.weight", 1, width // getattr(layer, "groups", 1)))
        elif isinstance(layer, nn.Parameter):
            slices.append((name, max(range(layer.dim()), key=lambda dim: layer.shape[dim]), width))
        else:
            slices += [(f"{name}.{each}", 0, width) for each, _ in layer.named_parameters()]
    kind: Literal["filters", "heads", "channels"] = "heads" if is_attention else "channels"
    if not is_attention and any(
        name == leaders[0] and isinstance(node.module, nn.Conv2d) for name, node, _, _ in items
    ):
        kind = "filters"
    return depth, Group(
        name=leaders[0].rpartition(".")[0] if is_attention else leaders[0],
        kind=kind,
        units=units,
        unit_C=unit_C,
        traced=traced,
        writers=tuple(name for (name, *_), side in zip(items, sides, strict=True) if side in ("out", "both")),
        leaders=tuple(leaders),
        readers=tuple(readers),
        slices=tuple(slices),
        is_exact=not any(isinstance(node.module, nn.LayerNorm) for _, node, _, _ in items),
        operations=tuple(dict.fromkeys(operations)),
    )


def _side(name: str, layer: nn.Module | nn.Parameter, writes: bool) -> Literal["out", "in", "both", "other"] | None:
    """Return the layer's use of the channels; None if any number works; raises UnsupportedArchitecture.

    It writes them (`out`), reads them (`in`), does both channel by channel (a depthwise convolution), or normalises or
    scales them (`other`).
    """
    match layer:
        case nn.Conv2d() if layer.groups > 1 and layer.groups == layer.out_channels:
            if layer.in_channels == layer.out_channels:
                return "both"
        case nn.Conv2d() | nn.Linear():
            return "out" if writes else "in"
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.Parameter():
            return "other"
        case nn.LayerNorm() if len(layer.normalized_shape) == 1:
            return "other"
        case nn.PReLU() if layer.num_parameters == 1:
            return None
    raise UnsupportedArchitecture(
        f"{name} ({type(layer).__name__}): the channels of such a layer cannot be removed; convolutions and linear "
        "layers, batch-norm, layer-norm and depthwise convolutions can be coupled",
        param="model",
    )


def _scale_inputs(parts: list[tuple[Tensor, Tensor]], layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a layer's inputs times the gates: [batch, channels, …] for a convolution, else [batch, …, channels]."""
    tensor, *rest = inputs
    is_convolution = isinstance(layer, nn.Conv2d)
    channels = tensor.shape[1 if is_convolution else -1]
    for channels_UK, gate in parts:
        gate_K = gate.to(tensor.dtype).repeat_interleave(channels_UK.shape[1], dim=-1)
        index = channels_UK.flatten().to(tensor.device).expand(gate_K.shape)
        factor = torch.ones(*gate.shape[:-1], channels, dtype=tensor.dtype, device=tensor.device).scatter(
            -1, index, gate_K
        )
        if is_convolution:
            factor = factor[..., None, None]
        elif factor.dim() == 2:
            factor = factor.view(len(factor), *[1] * (tensor.dim() - 2), channels)
        tensor = tensor * factor
    return (tensor, *rest)


@torch.no_grad()
def _positions(model: nn.Module, image_1CHW: Tensor) -> dict[str, int]:
    positions: Counter[str] = Counter()

    def see(name: str, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        positions[name] += output.numel() // len(layer.get_parameter("weight"))

    with removed_after(
        layer.register_forward_hook(partial(see, name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ):
        model(pixel_values=image_1CHW)
    return positions
