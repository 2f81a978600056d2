"""Units of an architecture: channels of its FFN and heads of its attention, and the settings that count them.

A cut is offered only where two things agree: the probe of a tiny copy, which says what depends on what, and the
differential of its config, which says what another number of units makes of every parameter.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from transformers import PreTrainedModel

from core.engine.architectures.architecture import Architecture, UnitAxis
from core.engine.models.tracing.differential import Change, Differential
from core.engine.models.tracing.head_settings import HeadSettings, find_head_settings
from core.engine.models.tracing.probe import block_kinds, probe_block
from core.engine.models.tracing.unit_axes import BlockCut, block_cut, unit_axes
from core.engine.models.tracing.unit_layout import NoUnits, Units, units_of

CHANNELS = "channels"
HEADS = "heads"


@dataclass(frozen=True)
class DiscoveredUnits:
    """What can be removed from a block, by the linear layer that reads it, and how the config counts it.

    `units` has the axes of each kind by that layer. `refused` says why a kind of unit cannot be removed.
    """

    units: Mapping[str, Mapping[str, tuple[UnitAxis, ...]]] = field(default_factory=dict)
    width_key: str | None = None
    heads: HeadSettings | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    def of(self, architecture: Architecture) -> Architecture:
        """Return an architecture with these units in its sublayers; what has no sublayer of its own is refused."""
        outputs = {each.output for each in architecture.sublayers}
        astray = {
            kind: f"{reader} reads it, which does not give what is added to the residual stream"
            for reader, units in self.units.items()
            for kind in units
            if reader not in outputs
        }
        keys = {} if self.heads is None else self.heads.config_keys
        return replace(
            architecture,
            sublayers=tuple(replace(each, units=self.units.get(each.output, {})) for each in architecture.sublayers),
            width_key=self.width_key or architecture.width_key,
            config_keys={**architecture.config_keys, **keys},
            heads_divide_hidden=self.heads is not None and self.heads.divide_hidden,
            refused={**architecture.refused, **self.refused, **astray},
        )


@dataclass(frozen=True)
class _Cut:
    reader: str
    axes: tuple[UnitAxis, ...]
    width_key: str | None = None
    heads: HeadSettings | None = None


def discover_units(
    model: PreTrainedModel, blocks: str, linears: Sequence[str], differential: Differential
) -> DiscoveredUnits:
    """Return the units of a tiny model that `randomise` has been over, and whose config the differential is of.

    `linears` are the linear layers of its blocks in order of execution; a block has those of them that it has.
    """
    found = _by_reader(_probed(model, blocks, linears, differential), differential)
    channels = _channels(found, differential, blocks, linears)
    heads = _heads(found, differential, blocks, linears)
    units: dict[str, Mapping[str, tuple[UnitAxis, ...]]] = {}
    refused = {}
    for kind, cut in ((HEADS, heads), (CHANNELS, channels)):
        if isinstance(cut, str):
            refused[kind] = cut
        else:
            units[cut.reader] = {kind: cut.axes}
    return DiscoveredUnits(
        units,
        None if isinstance(channels, str) else channels.width_key,
        None if isinstance(heads, str) else heads.heads,
        refused,
    )


def _probed(
    model: PreTrainedModel, blocks: str, linears: Sequence[str], differential: Differential
) -> list[tuple[str, Units | NoUnits]]:
    """Return what each reader of each kind of block reads: its units, or why it has none."""
    found = []
    weights = Counter(
        id(each) for block in model.get_submodule(blocks).children() for each in dict(block.named_parameters()).values()
    )
    spanning = _spanning_norms(blocks, linears, differential)
    for index in block_kinds(model, blocks).values():
        block = model.get_submodule(f"{blocks}.{index}")
        moved = probe_block(model, blocks, index, linears, spanning)
        for reader in linears:
            each = units_of(reader, moved)
            if each is not None and weights[id(block.get_parameter(f"{reader}.weight"))] > 1:
                each = NoUnits(f"several layers have the same {reader}", each.is_mixing)
            if each is not None:
                found.append((reader, each))
    return found


def _spanning_norms(blocks: str, linears: Sequence[str], differential: Differential) -> list[str]:
    """Return the norms within blocks that have a weight for each feature of all units, so that they connect them all.

    These are what has one weight for each of some features that a setting changes which leaves the hidden size alone.
    """
    first = f"{blocks}."
    names = {
        name.removeprefix(first).partition(".")[2].rpartition(".")[0]
        for changes in differential.alone.values()
        if all(name.startswith(first) for name, _, _ in changes)
        for name, _, _ in changes
        if len(differential.shapes[name]) == 1 and name.endswith(".weight")
    }
    return sorted(names - set(linears))


def _by_reader(found: Sequence[tuple[str, Units | NoUnits]], differential: Differential) -> dict[str, Units | NoUnits]:
    """Return what each reader reads in all blocks that have it, those of the largest weights first.

    What only feeds units of another, as the low rank of a latent attention does, is left out.
    """
    inner = {name for _, each in found if isinstance(each, Units) for name in each.runs}
    by_reader: dict[str, Units | NoUnits] = {}
    for reader, each in found:
        before = by_reader.setdefault(reader, each)
        if before != each:
            by_reader[reader] = NoUnits(
                f"what {reader} reads is made of other units in some layers than in others",
                before.is_mixing or each.is_mixing,
            )
    sizes = {
        reader: sum(prod(shape) for name, shape in differential.shapes.items() if name.endswith(f".{reader}.weight"))
        for reader in by_reader.keys() - inner
    }
    return {reader: by_reader[reader] for reader in sorted(sizes, key=lambda each: (-sizes[each], each))}


def _channels(
    found: Mapping[str, Units | NoUnits], differential: Differential, blocks: str, linears: Sequence[str]
) -> _Cut | str:
    """Return the cut of the channels of the largest FFN; or why there is none."""
    for units in found.values():
        if units.is_mixing:
            continue
        if isinstance(units, NoUnits):
            return units.reason
        if units.width != 1:
            continue
        cut = block_cut(units, differential, blocks)
        reasons = []
        for key, changes in _width_changes(cut, units, differential):
            axes = unit_axes(cut, changes, 1, differential, linears)
            if not isinstance(axes, str):
                return _Cut(units.reader, axes, width_key=key)
            reasons.append(f"{key}: {axes}")
        reasons.append(f"no setting of its config is the number of channels that {units.reader} reads")
        return reasons[0]
    return "no linear layer of its blocks reads channels that can go one by one"


def _width_changes(cut: BlockCut, units: Units, differential: Differential) -> Iterator[tuple[str, frozenset[Change]]]:
    """Yield the settings that change the number of channels, with all that one channel more changes."""
    named = [key for key, value in differential.integers.items() if value == units.units]
    for key in (*named, *differential.unset):
        changes = differential.changes({key: units.units + 1})
        if isinstance(changes, str) or not cut.reading(1) <= changes:
            continue
        fewer = ((left - units.units, differential.changes({key: left})) for left in (units.units // 2, units.units // 8))
        if all(isinstance(each, frozenset) and cut.reading(more) <= each for more, each in fewer):
            yield key, changes


def _heads(
    found: Mapping[str, Units | NoUnits], differential: Differential, blocks: str, linears: Sequence[str]
) -> _Cut | str:
    """Return the cut of the heads of an attention; or why there is none, of the one that came nearest."""
    reasons: list[tuple[int, str]] = [(0, "no linear layer of its blocks reads heads that can go one by one")]
    for reader, units in found.items():
        if not units.is_mixing:
            continue
        if isinstance(units, NoUnits):
            reasons.append((2, units.reason))
        elif units.head_width == 1 or not _has_queries(units):
            reasons.append((1, f"what {reader} reads has no heads: each feature goes its own way through time"))
        else:
            settings = find_head_settings(block_cut(units, differential, blocks), units, differential, linears)
            if not isinstance(settings, str):
                return _Cut(reader, settings[1], heads=settings[0])
            reasons.append((3, settings))
    best = max(rank for rank, _ in reasons)
    return next(reason for rank, reason in reasons if rank == best)


def _has_queries(units: Units) -> bool:
    return any(run.query for runs in units.runs.values() for run in runs)
