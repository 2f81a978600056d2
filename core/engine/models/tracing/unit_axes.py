"""Axes of units: what the config's differential changes, named by what the probe found there."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from core.engine.architectures.unit_axis import UnitAxis
from core.engine.models.tracing.differential import Change, Differential, Shapes
from core.engine.models.tracing.unit_layout import Run, Units


@dataclass(frozen=True)
class BlockCut:
    """Units of some blocks, by the names of these blocks; `input_side` is the dimension of weights' inputs."""

    units: Units
    prefixes: tuple[str, ...]
    input_side: int

    def reading(self, more: int) -> frozenset[Change]:
        """Return what so many more units change in the weights that read them."""
        weight = f"{self.units.reader}.weight"
        return frozenset((prefix + weight, self.input_side, more * self.units.width) for prefix in self.prefixes)

    def reads(self, shapes: Shapes) -> int:
        """Return how much the first reader reads in a model of these shapes."""
        return shapes[f"{self.prefixes[0]}{self.units.reader}.weight"][self.input_side]


def block_cut(units: Units, differential: Differential, blocks: str, *, is_transposed: bool) -> BlockCut:
    """Return the blocks that have a reader of such units, of as many features."""
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
    """Return the axes of what so many more units change; as words, what there is beside what the probe found."""
    differences: dict[tuple[str, int], int] = {}
    dimensions: dict[str, int] = {}
    for name, dimension, difference in changes:
        prefix = next((each for each in cut.prefixes if name.startswith(each)), None)
        if prefix is None:
            return f"it changes {name} too"
        own = name.removeprefix(prefix)
        dimensions[own] = len(differential.shapes[name])
        if differences.setdefault((own, dimension), difference) != difference:
            return f"it changes {name} by another number than in other layers"
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
    """Return the axes of channels as the probe alone tells them: of linear layers and no others; or why there are none.

    Nothing that they leave out goes unnoticed: what else is as wide no longer fits.
    """
    axes = [UnitAxis(cut.units.reader, "in", ("channel",))]
    for module, runs in cut.units.runs.items():
        names = tuple(_times("channel", run.query) for run in runs if not run.key)
        if len(names) < len(runs):
            return f"the rows of {module} are in an order for which there is no cut"
        axes.append(UnitAxis(module, "out", names))
    return tuple(sorted(axes, key=lambda each: linears.index(each.module)))


def _rank(axis: UnitAxis) -> tuple[bool, str]:
    """Return the place of an axis among those that are no linear layers: those of queries before those of keys."""
    return axis.runs[0].startswith("k"), axis.module


def _axis(cut: BlockCut, name: str, dimension: int, difference: int, more: int, dimensions: int) -> UnitAxis | str:
    """Return the axis of a parameter that differs by so much; or why it is none."""
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
            return f"it changes {name} by {difference}, a unit has {rows}"
        names = tuple(name for name in (_name(units, run) for run in runs) if name is not None)
        if len(names) < len(runs):
            return f"the rows of {module} are in an order for which there is no cut"
        return UnitAxis(module, "out", names)
    if dimension != 0 or dimensions > 2:
        return f"it changes {name} too"
    # A matrix that is no linear layer has a row for each head.
    sizes = {1: "kv_head", units.group: "head"} if units.is_mixing else {}
    if dimensions == 1:
        sizes |= {units.head_width: "key", units.width: "query"} if units.is_mixing else {1: "channel"}
    run = None if difference % more else sizes.get(difference // more)
    return f"it changes {name} too" if run is None else UnitAxis(module, "out", (run,))


def _name(units: Units, run: Run) -> str | None:
    """Return the name of a run, as kinds of units call it: of what it has features, and how many times as many."""
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
