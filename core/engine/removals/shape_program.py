"""Search for the shapes of all layers that lose least under a limit of cost: a mixed-integer linear program.

The quality that each variant of a layer loses is a table, from the scores of its units.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from torch import Tensor

from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_counts import CostLimit, LayerCounts
from core.engine.architectures.units import KindName, UnitKind
from core.engine.cuts import RunWorth, VariantWorth, WorthTable

RunCost = Callable[[int, int], float]
"""Cost in nats per token of dropping the layers `first` to `end` − 1 together."""
_GAP = 1e-6
"""Relative distance to the best possible sum at which the solver may stop."""

_ROUNDING = 1e-12
"""Relative difference of a sum of floats that is no difference."""


class Option(NamedTuple):
    """One option: the quality lost by it, in nats per token, and its cost, such as milliseconds or bytes."""

    worth: float
    cost: float


@dataclass(frozen=True)
class ShapeChoice:
    """Choice of a program: the place of each layer's option, None for a dropped layer, and of the vocabulary's.

    `worth` and `cost` are the sums over all parts.
    """

    options: tuple[int | None, ...]
    vocabulary: int | None
    worth: float
    cost: float

    @property
    def dropped(self) -> list[int]:
        """Return the dropped layers, ascending."""
        return [layer for layer, option in enumerate(self.options) if option is None]


@dataclass(frozen=True)
class ShapeProgram:
    """Options of a model's layers, whose worth and cost add up: exactly one for each layer, or the layer is dropped.

    `layers` has the options of each layer, [layers][options]. `runs` has the quality lost when the layers `first` to
    `end` − 1 are dropped together and the layers around them stay; a run that is not in it cannot be dropped.
    `vocabulary` has the options of the vocabulary's size, empty where it is fixed. `fixed_cost` is the cost of
    everything else.

    The binary variables are x[l, o] for option o of layer l, y[s, e] for the run of layers s to e − 1, and z[v] for
    size v. The sum of their worths is minimal, and that of their costs at most the limit:

    - Σ_o x[l, o] + Σ_{s ≤ l < e} y[s, e] = 1 for each layer l, and Σ_v z[v] = 1.
    - Σ_s y[s, e] + Σ_t y[e, t] ≤ 1 for each boundary e, so that two runs are never one longer run.
    - With `uniform`, x[l, o] ≤ u[o] and Σ_o u[o] = 1: all layers that stay have the same option.
    """

    layers: Sequence[Sequence[Option]]
    runs: Mapping[tuple[int, int], float] = field(default_factory=dict)
    vocabulary: Sequence[Option] = ()
    fixed_cost: float = 0.0

    def best(self, limit: float, *, dropped: int | None = None, uniform: bool = False) -> ShapeChoice | None:
        """Return the choice of least worth that costs at most `limit`; None where there is none.

        Exactly `dropped` layers are dropped, any number where it is None. With `uniform` the other layers all have the
        option of the same place.
        """
        rows, aim = _Rows(self, dropped, uniform), limit
        while True:
            choice = rows.solve(aim)
            if choice is None or choice.cost <= limit + abs(limit) * _ROUNDING:
                return choice
            aim -= max(2 * (choice.cost - limit), abs(limit) * _GAP)  # the solver's tolerance let it through

    def cheapest(self, *, dropped: int | None = None, uniform: bool = False) -> ShapeChoice | None:
        """Return the choice of least cost, the nearest to a limit that none reaches; None where there is none."""
        return _Rows(self, dropped, uniform).solve(None)


class _Rows:
    """Matrix of a program's constraints, and its solution."""

    def __init__(self, program: ShapeProgram, dropped: int | None, uniform: bool) -> None:
        self._program = program
        self._uniform = uniform and bool(program.layers)
        self._runs = list(program.runs)
        self._first = np.cumsum([0, *(len(each) for each in program.layers)])
        self._run = int(self._first[-1])
        self._size = self._run + len(self._runs)
        self._shape = self._size + len(program.vocabulary)
        options = {len(each) for each in program.layers}
        assert not self._uniform or len(options) == 1, "layers of one shape have the same options"
        self._variables = self._shape + (max(options) if self._uniform else 0)
        flat = [option for each in program.layers for option in each]
        self._worth = np.zeros(self._variables)
        self._cost = np.zeros(self._variables)
        self._worth[: self._run] = [each.worth for each in flat]
        self._worth[self._run : self._size] = list(program.runs.values())
        self._worth[self._size : self._shape] = [each.worth for each in program.vocabulary]
        self._cost[: self._run] = [each.cost for each in flat]
        self._cost[self._size : self._shape] = [each.cost for each in program.vocabulary]
        self._entries: list[tuple[int, int, float]] = []
        self._bounds: list[tuple[float, float]] = []
        self._constrain(dropped)

    def _constrain(self, dropped: int | None) -> None:
        program = self._program
        layers = len(program.layers)
        for layer, options in enumerate(program.layers):
            going = [place for place, (first, end) in enumerate(self._runs, self._run) if first <= layer < end]
            self._add([*(self._first[layer] + option for option in range(len(options))), *going], 1, 1)
        for boundary in range(1, layers):
            meeting = [place for place, run in enumerate(self._runs, self._run) if boundary in run]
            if len(meeting) > 1:
                self._add(meeting, 0, 1)
        if program.vocabulary:
            self._add(range(self._size, self._shape), 1, 1)
        if self._uniform:
            self._add(range(self._shape, self._variables), 1, 1)
            for layer, options in enumerate(program.layers):
                for option in range(len(options)):
                    self._add([self._first[layer] + option, self._shape + option], -np.inf, 0, (1, -1))
        if dropped is not None:
            lengths = [end - first for first, end in self._runs]
            self._add(range(self._run, self._size), dropped, dropped, lengths)

    def _add(self, variables: Sequence[int], least: float, most: float, factors: Sequence[float] | None = None) -> None:
        row = len(self._bounds)
        self._entries += [(row, each, 1.0 if factors is None else factors[n]) for n, each in enumerate(variables)]
        self._bounds.append((least, most))

    def solve(self, limit: float | None) -> ShapeChoice | None:
        """Return the choice of least worth within a limit, to the solver's tolerance; without one, of least cost."""
        entries, bounds = list(self._entries), list(self._bounds)
        objective = self._cost if limit is None else self._worth
        if limit is not None:  # both sides are divided by the largest cost, as tolerances are absolute
            scale = np.abs(self._cost).max(initial=0.0) or 1.0
            costly = np.flatnonzero(self._cost)
            entries += [(len(bounds), int(each), self._cost[each] / scale) for each in costly]
            bounds.append((-np.inf, (limit - self._program.fixed_cost) / scale))
        rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
        matrix = coo_array((values, (rows, columns)), shape=(len(bounds), self._variables))
        scale = np.abs(objective).max(initial=0.0) or 1.0
        result = milp(
            objective / scale,
            integrality=np.ones(self._variables),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix.tocsr(), *np.array(bounds).T),
            options={"mip_rel_gap": _GAP},
        )
        return None if result.x is None else self._choice(result.x > 0.5)

    def _choice(self, taken: np.ndarray) -> ShapeChoice:
        program = self._program
        options: list[int | None] = []
        for first, each in zip(self._first, program.layers, strict=False):
            own = np.flatnonzero(taken[first : first + len(each)])
            options.append(int(own[0]) if len(own) else None)
        sizes = np.flatnonzero(taken[self._size : self._shape])
        return ShapeChoice(
            tuple(options),
            int(sizes[0]) if len(sizes) else None,
            float(self._worth[taken].sum()),
            float(self._cost[taken].sum() + program.fixed_cost),
        )


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
