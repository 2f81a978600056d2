"""Rows of the report on a model that lost units: one for each kind of a layer's, or one for a layer that is gone."""

from collections.abc import Iterator, Mapping, Sequence

from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_kind import KindName, UnitKind
from core.engine.cuts.report import LAYER
from core.engine.pruning.results import UnitRow
from core.engine.pruning.units.removal import UnitCounts


def rows_of_layer(
    name: str,
    layer: int,
    structure: ModelStructure,
    kinds: Sequence[UnitKind],
    counts: UnitCounts,
    costs: Mapping[KindName, float],
) -> Iterator[UnitRow]:
    """Yield the rows of a layer of that name; `costs` are the increases of the loss that are expected, by kind."""
    shape = structure.layers[layer]
    if layer not in counts.layers:
        yield UnitRow(name, layer, LAYER, 1, 0, shape.parameters)
        return
    for kind in kinds:
        before, after = kind.units(shape), counts.layers[layer].units[kind.name]
        removed = (before - after) * kind.parameters(structure, layer)
        yield UnitRow(name, layer, kind.name, before, after, removed, costs.get(kind.name))
