"""Coupling of a network's channels, from torch-pruning's dependency graph (Fang 2023, arXiv:2301.12900).

The graph is traced with one image and shows the coupled channels of layers. This module decides the unit of removal:
entire attention heads, or one channel of every group in grouped convolutions.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.pruning.filters.channel_slices import Group, Kind, Member, Side, Slice
from secateur_wire.errors import UnsupportedArchitecture

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class _CoupledLayer:
    """Layer of a group; its channel `indices_N[n]` is coupled with channel `roots_N[n]` of the group's root."""

    name: str
    layer: nn.Module | nn.Parameter
    side: Side
    roots_N: Tensor
    indices_N: Tensor
    depth: int


def coupled_groups(model: nn.Module, image_1CHW: Tensor) -> list[Group]:
    """Return the removable groups of a network, those nearest to the image first.

    The network is called as `model(pixel_values=…).logits`. Its outputs and the image's channels are never in a group,
    and neither is the width of a transformer, which its tokens and positions share. Raises UnsupportedArchitecture
    naming the layer or operation that cannot be coupled.
    """
    import torch_pruning  # a library of workers, needed only to remove channels

    head_sizes = _head_sizes(model)
    graph = torch_pruning.DependencyGraph()
    try:
        with torch.enable_grad():
            graph.build_dependency(model, image_1CHW, forward_fn=_logits, verbose=False)
            traced = list(graph.get_all_groups())
    except Exception as error:  # the library raises exceptions of any type
        raise UnsupportedArchitecture(
            f"the channels of {type(model).__name__} cannot be traced: {str(error)[:300]}", param="model"
        ) from error
    names: dict[int, str] = {id(each): name for name, each in (*model.named_modules(), *model.named_parameters())}
    order = {name: place for place, name in enumerate(names.values())}
    depths = _depths(list(graph.module2node.values()))
    groups = [_group(graph, each, names, depths, head_sizes, order) for each in traced]
    for node in graph.module2node.values():  # they refer to each other and to the weights until garbage is collected
        node.inputs = node.outputs = node.dependencies = []
        node.grad_fn = None
    removable = [(depth, group) for depth, group in (each for each in groups if each) if group.units > 1]
    return [group for _, group in sorted(removable, key=lambda pair: (pair[0], order[pair[1].leaders[0].name]))]


def _logits(model: nn.Module, image_1CHW: Tensor) -> Tensor:
    logits: Tensor = model(pixel_values=image_1CHW).logits
    return logits


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
    graph: Any, traced: Any, names: dict[int, str], depths: dict[int, int], head_sizes: dict[str, int],
    order: dict[str, int],
) -> tuple[int, Group] | None:  # fmt: skip
    """Return a group and its distance from the image; None where its channels cannot be removed."""
    layers: list[_CoupledLayer] = []
    operations: list[str] = []
    for item in traced:
        node, writes = item.dep.target, graph.is_out_channel_pruning_fn(item.dep.handler)
        name = names.get(id(node.module))
        if not node.outputs and (name is None or writes):
            return None  # the network's outputs
        if name is None:
            operations.append(node.grad_fn.name().partition("Backward")[0])
            continue
        if isinstance(node.module, nn.Parameter) and node.module.dim() > 1 and max(node.module.shape[1:]) > 1:
            return None  # tokens and positions: the width of a transformer
        side = _side(name, node.module, writes)
        if side is not None:
            roots_N, indices_N = torch.tensor(item.root_idxs), torch.tensor(item.idxs)
            layers.append(_CoupledLayer(name, node.module, side, roots_N, indices_N, depths[id(node)]))
    writers = [each for each in layers if each.side == "out"]
    if not writers:
        return None  # a depthwise convolution of the image itself
    unit_of_root_N = _units(layers, head_sizes)
    units = int(unit_of_root_N.max()) + 1
    members = {id(each): _member(each, unit_of_root_N, units) for each in layers}
    depth = min(each.depth for each in writers)
    leading = sorted((each for each in writers if each.depth == depth), key=lambda each: order[each.name])
    first = leading[0]
    kind: Kind = (
        "heads" if first.name in head_sizes else "filters" if isinstance(first.layer, nn.Conv2d) else "channels"
    )
    return depth, Group(
        name=first.name.rpartition(".")[0] if kind == "heads" else first.name,
        kind=kind,
        units=units,
        members=tuple(members.values()),
        leaders=tuple(members[id(each)] for each in leading),
        is_exact=not any(isinstance(each.layer, nn.LayerNorm) for each in layers),
        operations=tuple(dict.fromkeys(operations)),
    )


def _side(name: str, layer: nn.Module | nn.Parameter, writes: bool) -> Side | None:
    """Return the layer's use of the channels; None if any number works; raises UnsupportedArchitecture."""
    match layer:
        case nn.Conv2d() if layer.groups > 1 and layer.groups == layer.out_channels:
            if layer.in_channels == layer.out_channels:
                return "both"
        case nn.Conv2d() | nn.Linear():
            return "out" if writes else "in"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return "norm"
        case nn.LayerNorm() if len(layer.normalized_shape) == 1:
            return "norm"
        case nn.Parameter():
            return "scale"
        case nn.PReLU() if layer.num_parameters == 1:
            return None
    raise UnsupportedArchitecture(
        f"{name} ({type(layer).__name__}): the channels of such a layer cannot be removed; convolutions and linear "
        "layers, batch-norm, layer-norm and depthwise convolutions can be coupled",
        param="model",
    )


def _units(layers: list[_CoupledLayer], head_sizes: dict[str, int]) -> Tensor:
    """Return the unit of each root channel, [channels]; channels of one head or grouped convolution share a unit."""
    parent = list(range(1 + max(int(each.roots_N.max()) for each in layers)))

    def top(channel: int) -> int:
        while parent[channel] != channel:
            parent[channel] = channel = parent[parent[channel]]
        return channel

    for each in layers:
        if each.name in head_sizes and each.side == "out":
            tied_N = each.indices_N // head_sizes[each.name]
        elif isinstance(each.layer, nn.Conv2d) and each.layer.groups > 1 and each.side in ("in", "out"):
            tied_N = each.indices_N % _width(each.layer, each.side)
        else:
            continue
        first: dict[int, int] = {}
        for root, tie in zip(each.roots_N.tolist(), tied_N.tolist(), strict=True):
            one, other = sorted((top(root), top(first.setdefault(tie, root))))
            parent[other] = one
    tops = torch.tensor([top(channel) for channel in range(len(parent))])
    unit_of_root_N: Tensor = torch.unique(tops, return_inverse=True)[1]
    return unit_of_root_N


def _width(layer: nn.Conv2d, side: Side) -> int:
    """Return the number of channels in one group of the convolution."""
    return (layer.in_channels if side == "in" else layer.out_channels) // layer.groups


def _member(coupled: _CoupledLayer, unit_of_root_N: Tensor, units: int) -> Member:
    unit_N = unit_of_root_N[coupled.roots_N]
    pairs_N2 = torch.unique(torch.stack([unit_N, coupled.indices_N], dim=1), dim=0)  # sorted by unit, then by channel
    per_unit_U = torch.bincount(pairs_N2[:, 0], minlength=units)
    if per_unit_U.min() != per_unit_U.max():
        raise _uneven(coupled)
    channels_UK = pairs_N2[:, 1].view(units, -1)
    name, layer = coupled.name, coupled.layer
    if isinstance(layer, nn.Parameter):
        dim = max(range(layer.dim()), key=lambda each: layer.shape[each])
        return Member(name, coupled.side, channels_UK, (Slice(name, dim, channels_UK),))
    if coupled.side == "in":
        return Member(
            name, "in", channels_UK, (Slice(f"{name}.weight", 1, _numbered_within_groups(coupled, channels_UK)),)
        )
    if coupled.side == "out":
        _numbered_within_groups(coupled, channels_UK)
    tensors = [
        each
        for each in ("weight", "bias", "running_mean", "running_var")
        if isinstance(getattr(layer, each, None), Tensor)
    ]
    return Member(name, coupled.side, channels_UK, tuple(Slice(f"{name}.{each}", 0, channels_UK) for each in tensors))


def _numbered_within_groups(coupled: _CoupledLayer, channels_UK: Tensor) -> Tensor:
    """Return channels numbered within the groups of a convolution: [units, channels of each group].

    Raises UnsupportedArchitecture where a unit does not have the same channels in every group.
    """
    if not isinstance(coupled.layer, nn.Conv2d) or coupled.layer.groups == 1:
        return channels_UK
    groups, width = coupled.layer.groups, _width(coupled.layer, coupled.side)
    own_UK = (channels_UK % width).sort(dim=1).values
    if own_UK.shape[1] % groups or bool((own_UK != own_UK[:, ::groups].repeat_interleave(groups, dim=1)).any()):
        raise _uneven(coupled)
    return own_UK[:, ::groups]


def _uneven(coupled: _CoupledLayer) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"{coupled.name} ({type(coupled.layer).__name__}) gets its channels from several layers, and any removal "
        "leaves its groups or heads uneven",
        param="model",
    )
