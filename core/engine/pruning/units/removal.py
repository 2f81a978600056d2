"""Removal of units: the rows and columns of tensors that belong to a channel or head, and the config without them."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from pydantic import BaseModel
from torch import Tensor

from core.engine.architectures.architecture import CHANNELS_KIND, Architecture, ExpertChannels, Experts, UnitAxis
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.units import KindName, UnitKind, axis_dimension, axis_tensors, run_name
from core.engine.cuts import WorthTable
from core.engine.pruning.masks import lowest
from core.engine.pruning.units.unit_slices import SetSlice, StackSlice, UnitSlice
from secateur_wire.errors import NotFiniteWeights


@dataclass(frozen=True)
class UnitSet:
    """Removable units of one kind in a decoder layer: their number, and the slices they own.

    `output` is the weight that reads the units' outputs. The units are `sets` sets of equal size, one after the other,
    which each keep the same number. Where some are units of experts, `linear_output` is the weight that reads the
    others' outputs.
    """

    kind: KindName
    units: int
    slices: tuple[UnitSlice, ...]
    output: str
    sets: int = 1
    linear_output: str | None = None

    @property
    def linear(self) -> str:
        """Return the name of the layer that reads the units' outputs."""
        return self.reading_slice.linear

    @property
    def reading_slice(self) -> UnitSlice:
        """Return the slice of the weight that reads the units' outputs."""
        return next(each for each in self.slices if each.name == self.output)

    @property
    def reading_slices(self) -> list[UnitSlice]:
        """Return the slices of all weights that read the units' outputs."""
        return [each for each in self.slices if each.name in (self.output, self.linear_output)]

    def sum(self, per_feature: Callable[[UnitSlice], Tensor], present: Container[str]) -> Tensor:
        """Return a value of each feature summed over each unit, in all tensors that are `present`: [units]."""
        return torch.stack(
            [unit_slice.per_unit(per_feature(unit_slice)) for unit_slice in self.slices if unit_slice.name in present]
        ).sum(0)


def layer_unit_sets(
    family: Architecture, structure: ModelStructure, layer: int, kinds: Sequence[UnitKind]
) -> list[UnitSet]:
    """Return the units of decoder layer `layer`, a set for each of the kinds that it has."""
    return [_unit_set(family, structure, layer, kind) for kind in kinds if kind.units(structure.layers[layer])]


def _unit_set(family: Architecture, structure: ModelStructure, layer: int, kind: UnitKind) -> UnitSet:
    if kind.name == CHANNELS_KIND and family.experts is not None and family.experts.channels is not None:
        return _channels_of_experts(family, family.experts, family.experts.channels, structure.layers[layer], kind)
    units, sizes = kind.units(structure.layers[layer]), kind.runs(structure, layer)
    slices = []
    for axis in family.axes(kind.name):
        named = [(*sizes[name], factor) for name, factor in map(run_name, axis.runs)]
        runs = tuple((size * factor, unowned * factor) for size, unowned, factor in named)
        if any(size for size, _ in runs):
            for name in axis_tensors(axis):
                dimensions = 2 if axis.module in family.linears and name.endswith(".weight") else 1
                slices.append(UnitSlice(name, axis_dimension(family, axis, dimensions), units, runs))
    return UnitSet(kind.name, units, tuple(slices), family.reading_weight(kind.name))


def _channels_of_experts(
    family: Architecture, experts: Experts, channels: ExpertChannels, shape: LayerShape, kind: UnitKind
) -> UnitSet:
    """Return the channels of all experts of a layer, and of the linear network beside them."""
    width, count, sets = kind.units(shape), shape.sizes["expert_sets"], kind.sets(shape)
    total, in_stacks = width * sets, width * count
    slices: list[UnitSlice] = []
    for axis in channels.stacks if count else ():
        dimension = int((axis.side == "in") != experts.transposed)
        slices.append(StackSlice(axis.module, dimension, in_stacks, _runs_of_channels(axis), 0, total, count))
    if channels.linear is not None and sets > count:
        for axis in channels.linear.axes:
            for tensor in axis_tensors(axis):
                dimension = axis_dimension(family, axis, 2) if tensor.endswith(".weight") else 0
                runs = _runs_of_channels(axis)
                slices.append(SetSlice(tensor, dimension, total - in_stacks, runs, in_stacks, total))
    linear_output = (
        f"{channels.linear.axes[-1].module}.weight" if channels.linear is not None and sets > count else None
    )
    output = family.reading_weight(kind.name) if count else linear_output
    assert output is not None
    return UnitSet(kind.name, total, tuple(slices), output, sets, linear_output if count else None)


def _runs_of_channels(axis: UnitAxis) -> tuple[tuple[int, int], ...]:
    return tuple((factor, 0) for _, factor in map(run_name, axis.runs))


def output_slices(family: Architecture, unit_sets: Sequence[UnitSet]) -> list[UnitSet]:
    """Return the units with the output slices of linear layers only: removal with them keeps all inputs of a weight."""
    outputs = int(family.transposed)
    return [
        replace(each, slices=tuple(unit_slice for unit_slice in each.slices if unit_slice.dimension == outputs))
        for each in unit_sets
    ]


KeptLayerUnits: TypeAlias = dict[KindName, list[int]]
"""Units a decoder layer keeps, by kind and index, ascending. A kind that is missing keeps all its units."""


def kept_mask(kept: Sequence[int] | None, units: int) -> Tensor:
    """Return a mask over `units` units of a kind, True for the kept ones; None means all: [units]."""
    kept_U = torch.full((units,), kept is None)
    if kept is not None:
        kept_U[list(kept)] = True
    return kept_U


class KeptUnits(BaseModel):
    """Kept part of a model: decoder layers by their number in the source, each with its kept units."""

    layers: dict[int, KeptLayerUnits]

    def counts(self, structure: ModelStructure, kinds: Sequence[UnitKind]) -> "UnitCounts":
        """Return the number of units each layer keeps."""
        layers = {}
        for layer, kept in self.layers.items():
            units = LayerCounts.of_all(structure.layers[layer], kinds).units
            sets = {kind.name: kind.sets(structure.layers[layer]) for kind in kinds}
            units = {kind: len(kept[kind]) // sets[kind] if kind in kept else each for kind, each in units.items()}
            layers[layer] = LayerCounts.of(structure, layer, kinds, units)
        return UnitCounts(layers=layers, kept=self.layers)


class UnitCounts(BaseModel):
    """Size of the kept part of a model: decoder layers by their number in the source, each with its counts.

    `kept` are the units themselves, where the plan chose them. `biases` are the config's settings that add biases to
    layers without them; `notes` are lines for the report. Where a limit of cost decided, `worth` is the table of the
    layers' variants that it chose from.
    """

    layers: dict[int, LayerCounts]
    kept: dict[int, KeptLayerUnits] | None = None
    biases: list[str] = []
    notes: list[str] = []
    worth: WorthTable | None = None

    def losing(self, structure: ModelStructure, kinds: Sequence[UnitKind]) -> list[KindName]:
        """Return the kinds of units that some layer loses."""
        return [
            kind.name
            for kind in kinds
            if any(each.units[kind.name] < kind.units(structure.layers[layer]) for layer, each in self.layers.items())
        ]


def require_finite(scores: Mapping[int, Mapping[KindName, Tensor]]) -> None:
    """Raise NotFiniteWeights where a score of the units of a layer is not finite."""
    for layer, kinds in scores.items():
        for kind, score_U in kinds.items():
            if not torch.isfinite(score_U).all():
                raise NotFiniteWeights(f"layer {layer}: the importance of its {kind} is not finite", param="model")


def highest(
    shape: LayerShape, kinds: Sequence[UnitKind], scores: Mapping[KindName, Tensor], counts: LayerCounts
) -> KeptLayerUnits:
    """Return a layer's units of highest score, with `counts` for each set; ties go to the later units."""
    kept: KeptLayerUnits = {}
    for kind in kinds:
        units, keep, parts = kind.units(shape), counts.units[kind.name], kind.parts(shape)
        if keep < units:
            kept[kind.name] = [
                unit + number * (units // parts)
                for number, score_U in enumerate(scores[kind.name].chunk(parts * kind.sets(shape)))
                for unit in _highest(score_U, keep // parts)
            ]
    return kept


def _highest(score_U: Tensor, keep: int) -> list[int]:
    highest: list[int] = (~lowest(score_U, len(score_U) - keep)).nonzero().flatten().tolist()
    return highest


def remove_units(
    tensors: Mapping[str, Tensor], unit_sets: Sequence[UnitSet], units: KeptLayerUnits
) -> dict[str, Tensor]:
    """Return a block's tensors without the removed units, by the same names."""
    sliced = dict(tensors)
    for each in unit_sets:
        kept = units.get(each.kind)
        if kept is None:
            continue
        index = torch.tensor(kept)
        for unit_slice in each.slices:
            if unit_slice.name in sliced:
                sliced[unit_slice.name] = unit_slice.taken(sliced[unit_slice.name], index)
    return sliced
