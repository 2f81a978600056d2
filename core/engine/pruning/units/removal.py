"""Removal of units: the rows and columns of tensors that belong to a channel or head, and the config without them."""

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
from core.engine.architectures.units import axis_dimension, axis_tensors
from core.engine.pruning.masks import lowest
from core.errors import NotFiniteWeights


@dataclass(frozen=True)
class UnitSlice:
    """A tensor of a block and the dimension of it that holds units.

    `runs` are stretches of that dimension: (features of one unit, 0), or (0, features no unit owns).
    """

    name: str
    dimension: int
    units: int
    runs: tuple[tuple[int, int], ...]

    def features(self, kept: Tensor) -> Tensor:
        """Return the indices, along the dimension, of the features of the units `kept`, in stored order."""
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
        """Expand a value of each unit to the features it owns, with `unowned` at those no unit owns: [features]."""
        stretches = [
            values_U.repeat_interleave(size) if size else values_U.new_full((rest,), unowned)
            for size, rest in self.runs
        ]
        return torch.cat(stretches)

    def per_unit(self, features: Tensor) -> Tensor:
        """Sum a value of each feature over the unit it belongs to: [units]."""
        total, start = features.new_zeros(self.units), 0
        for size, unowned in self.runs:
            end = start + size * self.units + unowned
            if size:
                total += features[start:end].reshape(self.units, size).sum(1)
            start = end
        return total


@dataclass(frozen=True)
class UnitSet:
    """The removable units of one kind in a decoder layer: how many there are, and the slices they own."""

    kind: Kind
    units: int
    slices: tuple[UnitSlice, ...]

    def sum(self, per_feature: Callable[[UnitSlice], Tensor], present: Container[str]) -> Tensor:
        """Sum a value of each feature over each unit, in all tensors that are `present`: [units]."""
        return torch.stack(
            [unit_slice.per_unit(per_feature(unit_slice)) for unit_slice in self.slices if unit_slice.name in present]
        ).sum(0)


def layer_unit_sets(
    family: Architecture, structure: ModelStructure, layer: int, attention: AttentionMode
) -> list[UnitSet]:
    """Return the units of decoder layer `layer`, with heads as `attention` counts them, none where it is 'none'."""
    shape = structure.layers[layer]
    group, head_dim = shape.heads // shape.kv_heads, structure.head_dim
    unit_sets = [_unit_set(family, "channels", family.axes("channels"), shape.channels, {"channel": (1, 0)})]
    if attention == "kv_groups":
        sizes: dict[Run, tuple[int, int]] = {"query": (group * head_dim, 0), "key": (head_dim, 0)}
        unit_sets.insert(0, _unit_set(family, "heads", family.axes("heads"), shape.kv_heads, sizes))
    elif attention == "query_heads":
        sizes = {"query": (head_dim, 0), "key": (0, shape.kv_heads * head_dim)}
        unit_sets.insert(0, _unit_set(family, "heads", family.axes("heads"), shape.heads, sizes))
    return unit_sets


def _unit_set(
    family: Architecture, kind: Kind, parts: Sequence[UnitAxis], units: int, sizes: Mapping[Run, tuple[int, int]]
) -> UnitSet:
    slices = []
    for part in parts:
        runs = tuple(sizes[run] for run in part.runs)
        if any(size for size, _ in runs):
            for name in axis_tensors(part):
                dimensions = 1 if name.endswith(".bias") or part.module.endswith("_norm") else 2
                slices.append(UnitSlice(name, axis_dimension(family, part, dimensions), units, runs))
    return UnitSet(kind, units, tuple(slices))


def reading_slice(family: Architecture, unit_set: UnitSet) -> UnitSlice:
    """Return the weight of the linear layer that reads the outputs of these heads or channels."""
    sublayer = family.sublayer_of(unit_set.kind)
    assert sublayer is not None
    return next(unit_slice for unit_slice in unit_set.slices if unit_slice.name == f"{sublayer.output}.weight")


def output_slices(family: Architecture, unit_sets: Sequence[UnitSet]) -> list[UnitSet]:
    """Return the units with the output slices of linear layers only: removing by these keeps all inputs of a weight."""
    outputs = int(family.transposed)
    return [
        replace(each, slices=tuple(unit_slice for unit_slice in each.slices if unit_slice.dimension == outputs))
        for each in unit_sets
    ]


class KeptLayerUnits(BaseModel):
    """The units a decoder layer keeps, by index, ascending; None: all."""

    heads: list[int] | None = None
    channels: list[int] | None = None

    def of(self, kind: Kind) -> list[int] | None:
        return self.heads if kind == "heads" else self.channels

    def mask(self, kind: Kind, units: int) -> Tensor:
        """Return a mask over `units` units of a kind, True for those that are kept: [units]."""
        kept = self.of(kind)
        kept_U = torch.full((units,), kept is None)
        if kept is not None:
            kept_U[kept] = True
        return kept_U


class KeptUnits(BaseModel):
    """The part of a model that is kept: decoder layers by their number in the source, each with its kept units."""

    attention: AttentionMode
    layers: dict[int, KeptLayerUnits]

    def counts(self, structure: ModelStructure) -> "UnitCounts":
        """Return the number of units each layer keeps."""
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
        """Return how many units of a kind a layer keeps."""
        return _units(self.layers[layer], kind, self.attention)

    def losing(self, structure: ModelStructure) -> list[Kind]:
        """Return the kinds of units that some layer loses."""
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


def _counted(structure: ModelStructure, layer: int, units: KeptLayerUnits, attention: AttentionMode) -> LayerCounts:
    shape = structure.layers[layer]
    heads, kv_heads = shape.heads, shape.kv_heads
    if units.heads is not None and attention == "kv_groups":
        heads, kv_heads = len(units.heads) * (heads // kv_heads), len(units.heads)
    elif units.heads is not None:
        heads = len(units.heads)
    channels = shape.channels if units.channels is None else len(units.channels)
    kept = LayerCounts(channels, heads, kv_heads, 0)
    removed = sum(
        (_units(shape, kind, attention) - _units(kept, kind, attention))
        * structure.unit_parameters(layer, kind, attention)
        for kind in _kinds(attention)
    )
    return replace(kept, removed=removed)


def require_finite(scores: Mapping[int, Mapping[Kind, Tensor]]) -> None:
    """Raise NotFiniteWeights where a score of the units of a layer is not finite."""
    for layer, kinds in scores.items():
        for kind, score_U in kinds.items():
            if not torch.isfinite(score_U).all():
                raise NotFiniteWeights(f"layer {layer}: the importance of its {kind} is not finite", param="model")


def highest(
    shape: LayerShape, attention: AttentionMode, scores: Mapping[Kind, Tensor], counts: LayerCounts
) -> KeptLayerUnits:
    """Return the units of highest score of a layer, as many as `counts` says; ties keep the later ones."""
    units = KeptLayerUnits()
    for kind, score_U in scores.items():
        if kind == "channels":
            if counts.channels < shape.channels:
                units.channels = _highest(score_U, counts.channels)
        elif attention == "kv_groups":
            if counts.kv_heads < shape.kv_heads:
                units.heads = _highest(score_U, counts.kv_heads)
        elif counts.heads < shape.heads:
            groups = shape.kv_heads
            of_group = [
                [head + number * (shape.heads // groups) for head in _highest(part, counts.heads // groups)]
                for number, part in enumerate(score_U.chunk(groups))
            ]
            units.heads = [head for heads in of_group for head in heads]
    return units


def _highest(score_U: Tensor, keep: int) -> list[int]:
    highest: list[int] = (~lowest(score_U, len(score_U) - keep)).nonzero().flatten().tolist()
    return highest


def remove_units(
    tensors: Mapping[str, Tensor], unit_sets: Sequence[UnitSet], units: KeptLayerUnits
) -> dict[str, Tensor]:
    """Return a block's tensors without the units that are not kept, by the same names."""
    sliced = dict(tensors)
    for each in unit_sets:
        kept = units.of(each.kind)
        if kept is None:
            continue
        index = torch.tensor(kept)
        for unit_slice in each.slices:
            if unit_slice.name in sliced:
                rows = unit_slice.features(index).to(sliced[unit_slice.name].device)
                sliced[unit_slice.name] = sliced[unit_slice.name].index_select(unit_slice.dimension, rows).contiguous()
    return sliced


def config_after_removal(
    raw: Mapping[str, Any], config: PretrainedConfig, family: Architecture, structure: ModelStructure, kept: UnitCounts
) -> dict[str, Any]:
    """Return the config.json after the removal, from the source's raw config and its parsed one.

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
    if family.axes("heads"):
        changed["head_dim"] = structure.head_dim
    own = [{name: value for name, value in each.items() if value != shared[name]} for each in layers]
    return per_layer_config(changed | shared, family, own)


def _settings(family: Architecture, shape: LayerShape | LayerCounts) -> dict[str, int]:
    """Return the settings of a layer's shape, by their names in the family's config."""
    heads = {HEADS_KEY: shape.heads, KV_HEADS_KEY: shape.kv_heads} if family.axes("heads") else {}
    return {family.width_key: shape.channels, **heads}
