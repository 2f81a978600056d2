"""Units of an architecture: channels of its FFN and heads of its attention, and the settings that count them.

A cut is offered only where two things agree: the probe of a tiny copy, which says what depends on what, and the
differential of its config, which says what another number of units makes of every parameter.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from torch import nn
from transformers import PreTrainedModel

from core.engine.architectures.architecture import UnitAxis
from core.engine.models.tracing.differential import Change, Differential
from core.engine.models.tracing.head_settings import HeadSettings, find_head_settings
from core.engine.models.tracing.probe import block_kinds, probe_block
from core.engine.models.tracing.unit_axes import BlockCut, block_cut, unit_axes
from core.engine.models.tracing.unit_layout import Units, units_of

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


def discover_units(
    model: PreTrainedModel, blocks: str, linears: Sequence[str], differential: Differential
) -> DiscoveredUnits:
    """Return the units of a tiny model that `randomise` has been over, and whose config the differential is of.

    `linears` are the linear layers of its blocks in order of execution; a block has those of them that it has.
    """
    found = _probed(model, blocks, linears, differential)
    cuts = {HEADS: _heads(found, differential, blocks, linears), CHANNELS: _channels(found, differential, blocks, linears)}
    units: dict[str, Mapping[str, tuple[UnitAxis, ...]]] = {}
    refused = {}
    for kind, cut in cuts.items():
        if isinstance(cut, str):
            refused[kind] = cut
        else:
            units[cut.reader] = {kind: cut.axes}
    channels, heads = cuts[CHANNELS], cuts[HEADS]
    return DiscoveredUnits(
        units,
        None if isinstance(channels, str) else channels.width_key,
        None if isinstance(heads, str) else heads.heads,
        refused,
    )


@dataclass(frozen=True)
class _Cut:
    reader: str
    axes: tuple[UnitAxis, ...]
    width_key: str | None = None
    heads: HeadSettings | None = None


def _probed(
    model: PreTrainedModel, blocks: str, linears: Sequence[str], differential: Differential
) -> list[Units | str]:
    """Return the units that each reader of each kind of block has, or why it has none."""
    found: list[Units | str] = []
    spanning = _spanning_norms(model, blocks, linears, differential)
    for index in block_kinds(model, blocks).values():
        moved = probe_block(model, blocks, index, linears, spanning)
        for reader in linears:
            each = units_of(reader, moved)
            if each is not None and each not in found:
                found.append(each)
    return found


def _spanning_norms(
    model: PreTrainedModel, blocks: str, linears: Sequence[str], differential: Differential
) -> list[str]:
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


def _channels(
    found: Sequence[Units | str], differential: Differential, blocks: str, linears: Sequence[str]
) -> _Cut | str:
    reasons = [each for each in found if isinstance(each, str)]
    for units in found:
        if isinstance(units, str) or units.is_mixing or units.width != 1:
            continue
        cut = block_cut(units, differential, blocks)
        answers: dict[str, tuple[UnitAxis, ...] | str] = {}
        for key, changes in _width_changes(cut, units, differential):
            answers[key] = unit_axes(cut, changes, 1, differential, linears)
            axes = answers[key]
            if not isinstance(axes, str):
                return _Cut(units.reader, axes, width_key=key)
        reasons = [f"{key}: {reason}" for key, reason in answers.items() if isinstance(reason, str)] + reasons
        reasons.append(f"no setting of its config is the number of channels that {units.reader} reads")
    return reasons[0] if reasons else "no linear layer reads channels that can go one by one"


def _width_changes(
    cut: BlockCut, units: Units, differential: Differential
) -> Iterator[tuple[str, frozenset[Change]]]:
    """Yield the settings that change the number of channels, with all that one channel more changes."""
    unset = ((key, differential.changes({key: units.units + 1})) for key in differential.unset)
    for key, changes in chain(differential.alone.items(), unset):
        if isinstance(changes, frozenset) and cut.reading(1) <= changes:
            yield key, changes


def _heads(
    found: Sequence[Units | str], differential: Differential, blocks: str, linears: Sequence[str]
) -> _Cut | str:
    reasons = [each for each in found if isinstance(each, str)]
    for units in found:
        if isinstance(units, str) or not units.is_mixing:
            continue
        if units.head_width == 1 or not any(run.query for runs in units.runs.values() for run in runs):
            reasons.append(f"what {units.reader} reads has no heads: each feature goes its own way through time")
            continue
        cut = block_cut(units, differential, blocks)
        settings = find_head_settings(cut, units, differential, linears)
        if not isinstance(settings, str):
            return _Cut(units.reader, settings[1], heads=settings[0])
        reasons.insert(0, settings)
    return reasons[0] if reasons else "no linear layer reads heads of an attention"


