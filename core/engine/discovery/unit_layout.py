"""Units of a block, by the movement of the probe: the connected rows of producers and columns of one reader.

Their axes are the changes of the config's differential, named by the probe's findings.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from core.engine.architectures.architecture import UnitAxis
from core.engine.discovery.differential import Change, Differential, Shapes
from core.engine.discovery.probe import Movement

_SHARED = -1
"""Unit of a row that belongs to no unit: it moves all columns, or none."""


@dataclass(frozen=True)
class Run:
    """Contiguous run of a producer's rows, unit after unit; each unit has `query` rows and `key` rows.

    A query row acts at its own position only, a key row at later ones too. `is_per_head`: the query rows of a unit are
    in the order of heads.
    """

    query: int
    key: int
    is_per_head: bool


@dataclass(frozen=True)
class Units:
    """Columns that can only be removed together: each of `units` units has `width` columns of the reader, in order.

    `heads` is the number of groups of columns that query rows alone connect; key rows connect heads to units. Where no
    row acts at later positions (`is_mixing` is False), heads and units are the same. `runs` are the runs of each
    producer's rows. Each row of the producers `spanned` moves most columns.
    """

    reader: str
    units: int
    heads: int
    width: int
    is_mixing: bool
    runs: Mapping[str, tuple[Run, ...]]
    spanned: tuple[str, ...] = field(default=(), compare=False)

    @property
    def group(self) -> int:
        """Return the number of heads per unit."""
        return self.heads // self.units

    @property
    def head_width(self) -> int:
        return self.width // self.group


@dataclass(frozen=True)
class NoUnits:
    """Reason why a linear layer's inputs do not form units; `is_mixing` is as for `Units`."""

    reason: str
    is_mixing: bool


def units_of(reader: str, producers: Mapping[str, Movement]) -> Units | NoUnits | None:
    """Return the units of a reader's columns, or the reason against them; None for a reader without units."""
    partial = {name: _moves_some(each) for name, each in producers.items() if bool(_moves_some(each).any())}
    if not partial:
        return None
    rows = torch.cat([producers[name].columns[chosen] for name, chosen in partial.items()])
    own = torch.cat([~producers[name].later[chosen].any(1) for name, chosen in partial.items()])
    is_mixing = any(bool(producers[name].later.any()) for name in partial)
    labels = _components(rows)
    heads = _components(rows[own]) if bool(own.any()) else labels
    units, number = int(labels.max()) + 1, int(heads.max()) + 1
    if units == 1 < number:  # all heads share one key and value head: only rows of queries can be removed
        labels, units = heads, number
        partial = {
            name: chosen & ~producers[name].later.any(1)
            for name, chosen in partial.items()
            if bool((chosen & ~producers[name].later.any(1)).any())
        }
    if units == 1:
        return NoUnits(f"all inputs of {reader} depend on each other", is_mixing)
    if not (_is_in_equal_runs(labels) and _is_in_equal_runs(heads)) or number % units:
        return NoUnits(f"the inputs of {reader} are not divided into adjacent units of the same size", is_mixing)
    runs: dict[str, tuple[Run, ...]] = {}
    for name, chosen in partial.items():
        ordered = _runs(producers[name], chosen, labels, heads)
        if ordered is None:
            return NoUnits(f"the rows of {name} are stored in an order that cannot be cut", is_mixing)
        runs[name] = ordered
    spanned = tuple(name for name in producers if name not in partial)
    return Units(reader, units, number, len(labels) // units, is_mixing, runs, spanned)


def _moves_some(movement: Movement) -> Tensor:
    """Return the rows that move some columns, but at most half of them.

    After a ReLU, a row that feeds all columns may not move every one of them.
    """
    counts = movement.columns.sum(1)
    return (counts > 0) & (2 * counts <= movement.columns.shape[1])


def _components(rows: Tensor) -> Tensor:
    """Return each column's component, numbered in the order of columns; rows connect the columns they move."""
    columns = rows.shape[1]
    reached = torch.eye(columns, dtype=torch.bool) | (rows.double().T @ rows.double() > 0)
    while True:
        further = reached.double() @ reached.double() > 0
        if torch.equal(further, reached):
            break
        reached = further
    first = reached.to(torch.int8).argmax(1)
    labels: Tensor = torch.unique(first, return_inverse=True)[1]
    return labels


def _is_in_equal_runs(labels: Tensor) -> bool:
    units = int(labels.max()) + 1
    return len(labels) % units == 0 and torch.equal(labels, torch.arange(units).repeat_interleave(len(labels) // units))


def _runs(movement: Movement, partial: Tensor, labels: Tensor, heads: Tensor) -> tuple[Run, ...] | None:
    """Return the runs of a producer's rows; None where they have no such order."""
    units = int(labels.max()) + 1
    group = (int(heads.max()) + 1) // units
    is_key = movement.later.any(1)
    first = movement.columns.to(torch.int8).argmax(1)
    of_row = torch.where(partial, labels[first], _SHARED).tolist()
    head_of_row = torch.where(partial, heads[first], _SHARED).tolist()
    row_runs = [(unit, len(list(rows))) for unit, rows in groupby(of_row)]
    runs: list[Run] = []
    start = 0
    while row_runs:
        ours, row_runs = row_runs[:units], row_runs[units:]
        size = ours[0][1]
        if [unit for unit, _ in ours] != list(range(units)) or any(rows != size for _, rows in ours):
            return None
        row_kinds = [is_key[start + unit * size : start + (unit + 1) * size].tolist() for unit in range(units)]
        if any(each != row_kinds[0] for each in row_kinds):
            return None
        key = sum(row_kinds[0])
        query = size - key
        run_heads = [
            head for row, head in enumerate(head_of_row[start : start + units * size], start) if not is_key[row]
        ]
        in_order = [head for head in range(units * group) for _ in range(query // group)]
        runs.append(Run(query, key, run_heads == in_order))
        start += units * size
    return tuple(runs)


@dataclass(frozen=True)
class BlockCut:
    """Units of some blocks, by the names of these blocks; `input_side` is the dimension of weights' inputs."""

    units: Units
    prefixes: tuple[str, ...]
    input_side: int

    def reading(self, more: int) -> frozenset[Change]:
        """Return the changes of the weights that read the units, for `more` units."""
        weight = f"{self.units.reader}.weight"
        return frozenset((prefix + weight, self.input_side, more * self.units.width) for prefix in self.prefixes)

    def reads(self, shapes: Shapes) -> int:
        """Return the number of inputs of the first reader in a model of these shapes."""
        return shapes[f"{self.prefixes[0]}{self.units.reader}.weight"][self.input_side]


def block_cut(units: Units, differential: Differential, blocks: str, *, is_transposed: bool) -> BlockCut:
    """Return the cut for the blocks that have a reader of such units, with the same number of features."""
    features = units.units * units.width
    weight = re.compile(rf"({re.escape(blocks)}\.[0-9]+\.){re.escape(units.reader)}\.weight")
    prefixes = tuple(
        match[1]
        for name, shape in differential.shapes.items()
        if features in shape and (match := weight.fullmatch(name))
    )
    return BlockCut(units, prefixes, 0 if is_transposed else 1)


def unit_axes(
    cut: BlockCut, changes: frozenset[Change], more: int, differential: Differential, linears: Sequence[str]
) -> tuple[UnitAxis, ...] | str:
    """Return the axes of the changes for `more` units, or the reason: a change that the probe did not find."""
    differences: dict[tuple[str, int], int] = {}
    dimensions: dict[str, int] = {}
    for name, dimension, difference in changes:
        prefix = next((each for each in cut.prefixes if name.startswith(each)), None)
        if prefix is None:
            return f"this setting also changes {name}"
        own = name.removeprefix(prefix)
        dimensions[own] = len(differential.shapes[name])
        if differences.setdefault((own, dimension), difference) != difference:
            return f"it changes {name} by another amount than in other layers"
    axes: dict[str, UnitAxis] = {}
    for (name, dimension), difference in differences.items():
        axis = _axis(cut, name, dimension, difference, more, dimensions[name])
        if isinstance(axis, str):
            return axis
        if axes.setdefault(axis.module, axis) != axis:
            return f"it changes {name} in two ways"
    missing = sorted({*cut.units.runs, cut.units.reader} - axes.keys())
    if missing:
        return f"it does not change {missing[0]}"
    order = {name: place for place, name in enumerate(linears)}
    return tuple(sorted(axes.values(), key=lambda each: (order.get(each.module, len(order)), _rank(each))))


def probed_axes(cut: BlockCut, linears: Sequence[str]) -> tuple[UnitAxis, ...] | str:
    """Return the axes of channels from the probe alone, of linear layers only; or the reason against them.

    A missing axis does not go unnoticed: the model's other tensors of that width would no longer fit.
    """
    axes = [UnitAxis(cut.units.reader, "in", ("channel",))]
    for module, runs in cut.units.runs.items():
        names = tuple(_times("channel", run.query) for run in runs if not run.key)
        if len(names) < len(runs):
            return f"the rows of {module} are stored in an order that cannot be cut"
        axes.append(UnitAxis(module, "out", names))
    return tuple(sorted(axes, key=lambda each: linears.index(each.module)))


def _rank(axis: UnitAxis) -> tuple[bool, str]:
    """Return the sort key of an axis among those that are not linear layers: queries before keys."""
    return axis.runs[0].startswith("k"), axis.module


def _axis(cut: BlockCut, name: str, dimension: int, difference: int, more: int, dimensions: int) -> UnitAxis | str:
    """Return the axis of a parameter that differs by `difference`, or the reason why it is not an axis."""
    units = cut.units
    module, _, last = name.rpartition(".")
    if last not in ("weight", "bias"):
        module = name
    if module == units.reader and last == "weight" and dimension == cut.input_side:
        return UnitAxis(module, "in", ("query" if units.is_mixing else "channel",))
    if module in units.runs:
        runs = units.runs[module]
        rows = sum(run.query + run.key for run in runs)
        if dimensions == 2 and dimension == cut.input_side:
            return f"it changes what {module} reads"
        if difference != more * rows:
            return f"it changes {name} by {difference}, but a unit has {rows}"
        names = tuple(name for name in (_name(units, run) for run in runs) if name is not None)
        if len(names) < len(runs):
            return f"the rows of {module} are stored in an order that cannot be cut"
        return UnitAxis(module, "out", names)
    if dimension != 0 or dimensions > 2:
        return f"this setting also changes {name}"
    # A matrix outside linear layers has a row for each head.
    sizes = {1: "kv_head", units.group: "head"} if units.is_mixing else {}
    if dimensions == 1:
        sizes |= {units.head_width: "key", units.width: "query"} if units.is_mixing else {1: "channel"}
    run = None if difference % more else sizes.get(difference // more)
    return f"this setting also changes {name}" if run is None else UnitAxis(module, "out", (run,))


def _name(units: Units, run: Run) -> str | None:
    """Return the name of a run for the kinds of units: the name of its features, and their factor."""
    if run.query and run.key:
        return None
    if not units.is_mixing:
        return _times("channel", run.query)
    if run.key:
        return _counted("key", "kv_head", run.key, units.head_width)
    return _counted("query", "head", run.query // units.group, units.head_width) if run.is_per_head else None


def _counted(of_width: str, of_one: str, rows: int, width: int) -> str:
    return _times(of_one, rows) if rows % width else _times(of_width, rows // width)


def _times(name: str, factor: int) -> str:
    return name if factor == 1 else f"{name}:{factor}"
