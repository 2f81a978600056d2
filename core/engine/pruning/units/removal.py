"""Removal of groups: the rows and columns of tensors that belong to a channel or head, and the config without them."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor
from transformers import PretrainedConfig

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.heterogeneous import HEADS_KEY, KV_HEADS_KEY, layer_settings, per_layer_config
from core.engine.architectures.unit_counts import (
    AttentionMode,
    Kind,
    LayerCounts,
    LayerShape,
    ModelStructure,
    Run,
    UnitAxis,
)
from core.engine.architectures.units import cut_dimension, cut_tensors
from core.engine.pruning.masks import lowest
from core.errors import NotFiniteWeights


@dataclass(frozen=True)
class Slot:
    """A tensor of a block and the dimension of it that holds groups.

    `runs` are stretches of that dimension: (features of one group, 0), or (0, features no group owns).
    """

    name: str
    dimension: int
    units: int
    runs: tuple[tuple[int, int], ...]

    def features(self, kept: Tensor) -> Tensor:
        """Return the indices, along the dimension, of the features of the groups `kept`, in stored order."""
        stretches, start = [], 0
        for size, unowned in self.runs:
            if size:
                stretches.append((start + kept[:, None] * size + torch.arange(size)).flatten())
            else:
                stretches.append(torch.arange(start, start + unowned))
            start += size * self.units + unowned
        return torch.cat(stretches)

    def per_feature(self, values: Tensor) -> Tensor:
        """Sum a tensor's values over every other dimension: [features]."""
        return values if values.dim() == 1 else values.sum(1 - self.dimension)

    def spread(self, values_U: Tensor, unowned: float) -> Tensor:
        """Expand a value of each group to the features it owns, with `unowned` at those no group owns: [features]."""
        stretches = [
            values_U.repeat_interleave(size) if size else values_U.new_full((rest,), unowned)
            for size, rest in self.runs
        ]
        return torch.cat(stretches)

    def per_unit(self, features: Tensor) -> Tensor:
        """Sum a value of each feature over the group it belongs to: [units]."""
        total, start = features.new_zeros(self.units), 0
        for size, unowned in self.runs:
            end = start + size * self.units + unowned
            if size:
                total += features[start:end].reshape(self.units, size).sum(1)
            start = end
        return total


@dataclass(frozen=True)
class Groups:
    """The removable groups of one kind in a decoder layer: how many there are, and the slots they own."""

    kind: Kind
    units: int
    slots: tuple[Slot, ...]

    def sum(self, per_feature: Callable[[Slot], Tensor], present: Container[str]) -> Tensor:
        """Sum a value of each feature over each group, in all tensors that are `present`: [units]."""
        return torch.stack([slot.per_unit(per_feature(slot)) for slot in self.slots if slot.name in present]).sum(0)


def layer_groups(family: Architecture, structure: ModelStructure, layer: int, attention: AttentionMode) -> list[Groups]:
    """Return the groups of decoder layer `layer`, with heads as `attention` counts them, none where it is 'none'."""
    shape = structure.layers[layer]
    group, head_dim = shape.heads // shape.kv_heads, structure.head_dim
    found = [_groups(family, "channels", family.channels, shape.channels, {"channel": (1, 0)})]
    if attention == "kv_groups":
        sizes: dict[Run, tuple[int, int]] = {"query": (group * head_dim, 0), "key": (head_dim, 0)}
        found.insert(0, _groups(family, "heads", family.heads, shape.kv_heads, sizes))
    elif attention == "query_heads":
        sizes = {"query": (head_dim, 0), "key": (0, shape.kv_heads * head_dim)}
        found.insert(0, _groups(family, "heads", family.heads, shape.heads, sizes))
    return found


def _groups(
    family: Architecture, kind: Kind, parts: Sequence[UnitAxis], units: int, sizes: Mapping[Run, tuple[int, int]]
) -> Groups:
    slots = []
    for part in parts:
        runs = tuple(sizes[run] for run in part.runs)
        if any(size for size, _ in runs):
            for name in cut_tensors(part):
                dimensions = 1 if name.endswith(".bias") or part.module.endswith("_norm") else 2
                slots.append(Slot(name, cut_dimension(family, part, dimensions), units, runs))
    return Groups(kind, units, tuple(slots))


def reading_slot(family: Architecture, groups: Groups) -> Slot:
    """Return the weight of the linear layer that reads the outputs of these heads or channels."""
    reader = family.attention_output if groups.kind == "heads" else family.channel_reader
    return next(slot for slot in groups.slots if slot.name == f"{reader}.weight")


def output_groups(family: Architecture, groups: Sequence[Groups]) -> list[Groups]:
    """Return the groups with output slots of linear layers only: removing by these keeps all inputs of a weight."""
    outputs = int(family.transposed)
    return [replace(each, slots=tuple(slot for slot in each.slots if slot.dimension == outputs)) for each in groups]


class LayerCut(BaseModel):
    """The groups a decoder layer keeps, by index, ascending; None: all."""

    heads: list[int] | None = None
    channels: list[int] | None = None

    def of(self, kind: Kind) -> list[int] | None:
        return self.heads if kind == "heads" else self.channels

    def mask(self, kind: Kind, units: int) -> Tensor:
        """Return a mask over `units` groups of a kind, True for those that are kept: [units]."""
        kept = self.of(kind)
        kept_U = torch.full((units,), kept is None)
        if kept is not None:
            kept_U[kept] = True
        return kept_U


class Cut(BaseModel):
    """The part of a model that is kept: decoder layers by their number in the source, each with its kept groups."""

    attention: AttentionMode
    layers: dict[int, LayerCut]

    def counts(self, structure: ModelStructure) -> "UnitCounts":
        """Return the number of groups each layer keeps."""
        layers = {n: _counted(structure, n, each, self.attention) for n, each in self.layers.items()}
        return UnitCounts(attention=self.attention, layers=layers)


class UnitCounts(BaseModel):
    """The size of what is kept of a model: decoder layers by their number in the source, each with its counts.

    `biases` are settings of the config that give layers biases which they did not have, `notes` lines for the report.
    """

    attention: AttentionMode
    layers: dict[int, LayerCounts]
    biases: list[str] = []
    notes: list[str] = []

    def of(self, layer: int, kind: Kind) -> int:
        """Return how many groups of a kind a layer keeps."""
        return _units(self.layers[layer], kind, self.attention)

    def losing(self, structure: ModelStructure) -> list[Kind]:
        """Return the kinds of groups that some layer loses."""
        return [
            kind
            for kind in _kinds(self.attention)
            if any(self.of(n, kind) < _units(structure.layers[n], kind, self.attention) for n in self.layers)
        ]


def _kinds(attention: AttentionMode) -> tuple[Kind, ...]:
    return ("channels",) if attention == "none" else ("heads", "channels")


def _units(size: LayerCounts | LayerShape, kind: Kind, attention: AttentionMode) -> int:
    if kind == "channels":
        return size.channels
    return size.kv_heads if attention == "kv_groups" else size.heads


def _counted(structure: ModelStructure, layer: int, cut: LayerCut, attention: AttentionMode) -> LayerCounts:
    shape = structure.layers[layer]
    heads, kv_heads = shape.heads, shape.kv_heads
    if cut.heads is not None and attention == "kv_groups":
        heads, kv_heads = len(cut.heads) * (heads // kv_heads), len(cut.heads)
    elif cut.heads is not None:
        heads = len(cut.heads)
    channels = shape.channels if cut.channels is None else len(cut.channels)
    kept = LayerCounts(channels, heads, kv_heads, 0)
    removed = sum(
        (_units(shape, kind, attention) - _units(kept, kind, attention))
        * structure.unit_parameters(layer, kind, attention)
        for kind in _kinds(attention)
    )
    return replace(kept, removed=removed)


def require_finite(scores: Mapping[int, Mapping[Kind, Tensor]]) -> None:
    """Raise NotFiniteWeights where a score of a layer's groups is not finite."""
    for layer, kinds in scores.items():
        for kind, score_U in kinds.items():
            if not torch.isfinite(score_U).all():
                raise NotFiniteWeights(f"layer {layer}: the importance of its {kind} is not finite", param="model")


def highest(
    shape: LayerShape, attention: AttentionMode, scores: Mapping[Kind, Tensor], counts: LayerCounts
) -> LayerCut:
    """Return the groups of highest score of a layer, as many as `counts` says; ties keep the later ones."""
    cut = LayerCut()
    for kind, score_U in scores.items():
        if kind == "channels":
            if counts.channels < shape.channels:
                cut.channels = _highest(score_U, counts.channels)
        elif attention == "kv_groups":
            if counts.kv_heads < shape.kv_heads:
                cut.heads = _highest(score_U, counts.kv_heads)
        elif counts.heads < shape.heads:
            groups = shape.kv_heads
            of_group = [
                [head + number * (shape.heads // groups) for head in _highest(part, counts.heads // groups)]
                for number, part in enumerate(score_U.chunk(groups))
            ]
            cut.heads = [head for heads in of_group for head in heads]
    return cut


def _highest(score_U: Tensor, keep: int) -> list[int]:
    found: list[int] = (~lowest(score_U, len(score_U) - keep)).nonzero().flatten().tolist()
    return found


def slice_block(tensors: Mapping[str, Tensor], groups: Sequence[Groups], cut: LayerCut) -> dict[str, Tensor]:
    """Return a block's tensors without the groups the cut leaves out, by the same names."""
    sliced = dict(tensors)
    for each in groups:
        kept = cut.of(each.kind)
        if kept is None:
            continue
        index = torch.tensor(kept)
        for slot in each.slots:
            if slot.name in sliced:
                rows = slot.features(index).to(sliced[slot.name].device)
                sliced[slot.name] = sliced[slot.name].index_select(slot.dimension, rows).contiguous()
    return sliced


def cut_config(
    raw: Mapping[str, Any], config: PretrainedConfig, family: Architecture, structure: ModelStructure, kept: UnitCounts
) -> dict[str, Any]:
    """Return the config.json after a cut, from the source's raw config and its parsed one.

    Where all layers have one shape it is a plain config of the family; else it says how each layer differs.
    """
    changed = dict(raw) | dict.fromkeys(kept.biases, True)
    changed["num_hidden_layers" if "num_hidden_layers" in raw else "n_layer"] = len(kept.layers)
    for name in family.lists_by_layer:
        if entries := getattr(config, name, None):
            changed[name] = [entries[layer] for layer in kept.layers]
    layers = [_settings(family, each) for each in kept.layers.values()]
    shared = _settings(family, structure.layers[0])
    if layer_settings(raw) is not None:
        shared = {name: raw[name] for name in shared}
    first = layers[0]
    accepts = not family.heads_divide_hidden or config.hidden_size % first[HEADS_KEY] == 0
    if accepts and all(each == first for each in layers):
        shared = first
    if family.heads:
        changed["head_dim"] = structure.head_dim
    own = [{name: value for name, value in each.items() if value != shared[name]} for each in layers]
    return per_layer_config(changed | shared, family, own)


def _settings(family: Architecture, shape: LayerShape | LayerCounts) -> dict[str, int]:
    """Return the settings of a layer's shape, by their names in the family's config."""
    heads = {HEADS_KEY: shape.heads, KV_HEADS_KEY: shape.kv_heads} if family.heads else {}
    return {family.width_key: shape.channels, **heads}
