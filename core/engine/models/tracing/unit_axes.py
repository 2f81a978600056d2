"""Axes of units: what the config's differential changes, named by what the probe found there."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.engine.architectures.architecture import UnitAxis
from core.engine.models.tracing.differential import Change, Differential
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


def block_cut(units: Units, differential: Differential, blocks: str) -> BlockCut:
    """Return the blocks that have a reader of such units, of as many features."""
    tail = f".{units.reader}.weight"
    features = units.units * units.width
    weights = {
        name.removesuffix(tail): shape
        for name, shape in differential.shapes.items()
        if name.startswith(f"{blocks}.") and name.endswith(tail) and features in shape
        and name.removeprefix(f"{blocks}.").removesuffix(tail).isdecimal()
    }
    # A weight that is square tells nothing: stored as [out, in] unless another of its model's says otherwise.
    sides = {shape.index(features) for shape in weights.values() if shape[0] != shape[1]} or {1}
    return BlockCut(units, tuple(f"{block}." for block in weights), min(sides))


def unit_axes(
    cut: BlockCut, changes: frozenset[Change], more: int, differential: Differential, linears: Sequence[str]
) -> tuple[UnitAxis, ...] | str:
    """Return the axes of what so many more units change; as words, what there is beside what the probe found."""
    by_name: dict[tuple[str, int], int] = {}
    counted: dict[tuple[str, int], int] = {}
    for name, dimension, difference in changes:
        prefix = next((each for each in cut.prefixes if name.startswith(each)), None)
        if prefix is None:
            return f"it changes {name} too"
        place = (name.removeprefix(prefix), dimension)
        if by_name.setdefault(place, difference) != difference:
            return f"it changes {name} by another number than in other layers"
        counted[place] = counted.get(place, 0) + 1
    axes: dict[str, UnitAxis] = {}
    for (name, dimension), difference in by_name.items():
        axis = _axis(cut, name, dimension, difference, more, len(differential.shapes[cut.prefixes[0] + name])
                     if cut.prefixes[0] + name in differential.shapes else 0)
        if isinstance(axis, str):
            return axis
        if axes.setdefault(axis.module, axis) != axis:
            return f"it changes {name} in two ways"
    missing = sorted({*cut.units.runs, cut.units.reader} - axes.keys())
    if missing:
        return f"it does not change {missing[0]}"
    order = {name: place for place, name in enumerate(linears)}
    return tuple(sorted(axes.values(), key=lambda each: (order.get(each.module, len(order)), _rank(each))))


def _rank(axis: UnitAxis) -> tuple[int, str]:
    """Return the place of an axis among those that are no linear layers: those of queries before those of keys."""
    return (int(axis.runs[0].startswith("k")), axis.module)


def _axis(
    cut: BlockCut, name: str, dimension: int, difference: int, more: int, dimensions: int
) -> UnitAxis | str:
    units = cut.units
    module, _, last = name.rpartition(".")
    if last not in ("weight", "bias"):
        module = name
    if module == units.reader and last == "weight" and dimension == cut.input_side:
        if difference != more * units.width:
            return f"it changes {name} by {difference}, not by whole units"
        return UnitAxis(module, "in", ("channel",) if not units.is_mixing else ("query",))
    if module in units.runs:
        runs = units.runs[module]
        if dimensions == 2 and dimension == cut.input_side:
            return f"it changes what {module} reads"
        if difference != more * sum(run.query + run.key for run in runs):
            return f"it changes {name} by {difference}, the probe found {sum(run.query + run.key for run in runs)}"
        names = tuple(run_name(units, run) for run in runs)
        if None in names:
            return f"the rows of {module} are in an order for which there is no cut"
        return UnitAxis(module, "out", tuple(each for each in names if each is not None))
    if dimension != 0 or dimensions > 2:
        return f"it changes {name} too"
    sizes = (
        {1: "channel"}
        if not units.is_mixing
        else {1: "kv_head", units.group: "head", units.head_width: "key", units.width: "query"}
    )
    run = sizes.get(difference // more) if difference % more == 0 else None
    if run is None or (dimensions == 2 and last == "weight" and run in ("channel", "query", "key")):
        return f"it changes {name} too"
    return UnitAxis(module, "out", (run,))


def run_name(units: Units, run: Run) -> str | None:
    """Return the name of a run, as kinds of units call it: of what it has features, and how many times as many."""
    if run.query and run.key:
        return None
    if not units.is_mixing:
        return _times("channel", run.query)
    if run.key:
        return _counted(("key", units.head_width), "kv_head", run.key)
    return _counted(("query", units.head_width), "head", run.query // units.group) if run.is_per_head else None


def _counted(whole: tuple[str, int], single: str, rows: int) -> str:
    name, width = whole
    return _times(single, rows) if rows % width else _times(name, rows // width)


def _times(name: str, factor: int) -> str:
    return name if factor == 1 else f"{name}:{factor}"
