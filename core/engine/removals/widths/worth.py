"""Table of what each variant of a layer is worth, from the scores of units, and the program of a limit of cost."""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product

from torch import Tensor

from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_counts import CostLimit, LayerCounts
from core.engine.architectures.units import KindName, UnitKind
from core.engine.cuts.worth import RunWorth, VariantWorth, WorthTable
from core.engine.removals.widths.shape_program import Option, ShapeChoice, ShapeProgram

RunCost = Callable[[int, int], float]
"""Cost in nats per token of dropping the layers `first` to `end` − 1 together."""


def worth_table(
    structure: ModelStructure,
    kinds: Sequence[UnitKind],
    scores: Sequence[Mapping[KindName, Tensor]],
    run_cost: RunCost | None,
    *,
    offered: Mapping[KindName, Collection[int]],
    protected: Collection[int],
    staying: Collection[int],
) -> WorthTable:
    """Return the worth of all variants whose numbers of units are `offered`, and of all runs without `staying` layers.

    `scores` has the cost of each unit in nats per token, by layer and kind: [sets × units]. A variant loses the units
    of least cost. `protected` layers have one variant, the complete one. `run_cost` is None where no layer can go.
    """
    layers = []
    for layer, shape in enumerate(structure.layers):
        numbers = [
            [kind.units(shape)]
            if layer in protected or not kind.units(shape)
            else sorted({each for each in offered[kind.name] if each < kind.units(shape)} | {kind.units(shape)})[::-1]
            for kind in kinds
        ]
        lost = {kind.name: _lost(scores[layer][kind.name], kind, shape) for kind in kinds if kind.units(shape)}
        layers.append(
            [
                VariantWorth(
                    units={kind.name: number for kind, number in zip(kinds, kept, strict=True)},
                    nats=sum(
                        lost[kind.name][(kind.units(shape) - number) // kind.parts(shape)]
                        for kind, number in zip(kinds, kept, strict=True)
                        if kind.units(shape)
                    ),
                )
                for kept in product(*numbers)
            ]
        )
    runs = []
    if run_cost is not None:
        for first in range(len(layers)):
            for end in range(first + 1, len(layers) + 1):
                if end - 1 in staying:
                    break
                if end - first < len(layers):
                    runs.append(RunWorth(first=first, end=end, nats=run_cost(first, end)))
    return WorthTable(layers=layers, runs=runs)


def _lost(scores_U: Tensor, kind: UnitKind, shape: LayerShape) -> list[float]:
    """Return the sum of the n least scores of each set and part, for n from 0 to all."""
    rows = kind.sets(shape) * kind.parts(shape)
    ascending = scores_U.double().reshape(rows, -1).sort(dim=1).values.sum(dim=0).cumsum(0)
    return [0.0, *ascending.tolist()]


def program_of(table: WorthTable, costs: CostLimit) -> ShapeProgram:
    """Return the program that chooses among a table's variants by these costs."""
    return ShapeProgram(
        [[Option(each.nats, costs.of_layer(each.units)) for each in variants] for variants in table.layers],
        {(run.first, run.end): run.nats for run in table.runs},
        fixed_cost=costs.fixed,
    )


def counts_of(
    structure: ModelStructure, kinds: Sequence[UnitKind], table: WorthTable, choice: ShapeChoice
) -> dict[int, LayerCounts]:
    """Return the counts of the layers that stay in a choice among a table's variants."""
    return {
        layer: LayerCounts.of(structure, layer, kinds, table.layers[layer][option].units)
        for layer, option in enumerate(choice.options)
        if option is not None
    }
