"""Units of an architecture: channels of its FFN and heads of its attention, and the settings that count them.

A cut is offered only where two things agree: the probe of a tiny copy, which says what depends on what, and the
differential of its config, which says what another number of units makes of every parameter.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from math import prod

from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.engine.architectures.architecture import OWN_WIDTH_KEY, Architecture
from core.engine.architectures.unit_axis import UnitAxis
from core.engine.models.tracing.differential import Differential
from core.engine.models.tracing.head_settings import HeadSettings, find_head_settings
from core.engine.models.tracing.probe import block_kinds, probe_block
from core.engine.models.tracing.unit_axes import BlockCut, block_cut, probed_axes, unit_axes
from core.engine.models.tracing.unit_layout import NoUnits, Units, units_of
from core.engine.models.tracing.width_settings import WidthSetting, width_settings

CHANNELS = "channels"
HEADS = "heads"
UNIFORM = "uniform"


@dataclass(frozen=True)
class DiscoveredUnits:
    """Units that can be removed from a block, by the linear layer that reads it, and how the config counts it.

    `units` has the axes of each kind by that layer, `width` counts channels. `refused` says why a kind of unit cannot
    be removed.
    """

    units: Mapping[str, Mapping[str, tuple[UnitAxis, ...]]] = field(default_factory=dict)
    width: WidthSetting | None = None
    heads: HeadSettings | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    def of(self, architecture: Architecture) -> Architecture:
        """Return an architecture with these units in its sublayers."""
        keys = {} if self.heads is None else self.heads.config_keys
        return replace(
            architecture,
            sublayers=tuple(
                replace(each, units={**each.units, **self.units.get(each.output, {})})
                for each in architecture.sublayers
            ),
            width_key=self._width_key(architecture),
            width_factor=architecture.width_factor if self.width is None else self.width.factor,
            width_settings=architecture.width_settings if self.width is None else self.width.others,
            has_own_widths=UNIFORM in self.refused,
            config_keys={**architecture.config_keys, **keys},
            heads_divide_hidden=self.heads is not None and self.heads.divide_hidden,
            refused={**architecture.refused, **self.refused},
        )

    def _width_key(self, architecture: Architecture) -> str:
        if UNIFORM in self.refused:
            return OWN_WIDTH_KEY
        return architecture.width_key if self.width is None else self.width.key


@dataclass(frozen=True)
class _Cut:
    reader: str
    axes: tuple[UnitAxis, ...]
    width: WidthSetting | None = None
    heads: HeadSettings | None = None
    uncounted: str | None = None
    """Why the config does not count the units, so that the modelling file has to."""


def discover_units(
    model: PreTrainedModel,
    blocks: str,
    sublayers: Sequence[Sequence[str]],
    differential: Differential,
    real: Differential,
    kinds: Collection[str] = (CHANNELS, HEADS),
) -> DiscoveredUnits:
    """Return the units of a tiny model that `randomise` has been over, and whose config the differential is of.

    Those of the `kinds` are sought. `real` is that of the config with its own widths. `sublayers` are the linear layers
    of each part of a block that adds to the residual stream, in order of execution: the last of each reads what the
    units are sought in. A block has those of them that it has.
    """
    finder = _Finder(model, blocks, sublayers, differential, real)
    finding = {HEADS: finder.heads, CHANNELS: finder.channels}
    cuts = {kind: find() for kind, find in finding.items() if kind in kinds}
    possible = {kind: cut for kind, cut in cuts.items() if isinstance(cut, _Cut)}
    uncounted = possible[CHANNELS].uncounted if CHANNELS in possible else None
    refused = {kind: cut for kind, cut in cuts.items() if isinstance(cut, str)}
    if uncounted is not None and possible.pop(HEADS, None) is not None:
        refused[HEADS] = f"layers get as narrow by their modelling file, which leaves heads as they are: {uncounted}"
    return DiscoveredUnits(
        {cut.reader: {kind: cut.axes} for kind, cut in possible.items()},
        possible[CHANNELS].width if CHANNELS in possible else None,
        possible[HEADS].heads if HEADS in possible else None,
        refused if uncounted is None else {**refused, UNIFORM: uncounted},
    )


class _Finder:
    """Search for the units of a model, in what its readers read, those of the largest weights first."""

    def __init__(
        self,
        model: PreTrainedModel,
        blocks: str,
        sublayers: Sequence[Sequence[str]],
        differential: Differential,
        real: Differential,
    ) -> None:
        self._blocks = blocks
        self._linears = [name for each in sublayers for name in each]
        self._differential, self._real = differential, real
        self._is_transposed = any(isinstance(each, Conv1D) for each in model.get_submodule(blocks).modules())
        self._readings = _by_reader(_probed(model, blocks, sublayers, differential), blocks, differential)

    def channels(self) -> _Cut | str:
        """Return the cut of the channels of an FFN, the largest that the config counts; or why there is none."""
        reasons = []
        uncounted: list[_Cut] = []
        for units in self._readings.values():
            if units.is_mixing:
                continue
            if isinstance(units, NoUnits):
                reasons.append(units.reason)
                continue
            if units.width > 1:
                continue
            cut = self._cut(units)
            for setting, changes in width_settings(cut, self._differential, self._real):
                axes = unit_axes(cut, changes, 1, self._differential, self._linears)
                if not isinstance(axes, str):
                    return _Cut(units.reader, axes, width=setting)
                reasons.append(f"{setting.key}: {axes}")
            reasons.append(f"no setting of its config is the number of channels that {units.reader} reads")
            axes = probed_axes(cut, self._linears)
            if not isinstance(axes, str) and units.units >= self._differential.config.hidden_size:
                uncounted.append(_Cut(units.reader, axes, uncounted=reasons[-1]))
        if uncounted:
            return uncounted[0]
        return reasons[0] if reasons else "no linear layer of its blocks reads channels that can go one by one"

    def heads(self) -> _Cut | str:
        """Return the cut of the heads of an attention; or why there is none, of the one that came nearest."""
        reasons = [(0, "no linear layer of its blocks reads heads that can go one by one")]
        for reader, units in self._readings.items():
            if not units.is_mixing:
                continue
            if isinstance(units, NoUnits):
                reasons.append((2, units.reason))
            elif units.head_width == 1 or not any(run.query for runs in units.runs.values() for run in runs):
                reasons.append((1, f"what {reader} reads has no heads: {_why_no_heads(units)}"))
            else:
                settings = find_head_settings(self._cut(units), units, self._differential, self._linears)
                if not isinstance(settings, str):
                    return _Cut(reader, settings[1], heads=settings[0])
                reasons.append((3, settings))
        return max(reasons, key=lambda each: each[0])[1]

    def _cut(self, units: Units) -> BlockCut:
        return block_cut(units, self._differential, self._blocks, is_transposed=self._is_transposed)


def _why_no_heads(units: Units) -> str:
    if units.spanned:
        return f"each row of {units.spanned[0]} moves all of it, as through a norm over all heads"
    return "each feature goes its own way through time"


def _probed(
    model: PreTrainedModel, blocks: str, sublayers: Sequence[Sequence[str]], differential: Differential
) -> list[tuple[str, Units | NoUnits]]:
    """Return what each reader of each kind of block reads: its units, or why it has none."""
    readings = []
    weights = Counter(
        id(each) for block in model.get_submodule(blocks).children() for each in dict(block.named_parameters()).values()
    )
    spanning = _spanning_norms(blocks, {name for each in sublayers for name in each}, differential)
    for index in block_kinds(model, blocks).values():
        block = model.get_submodule(f"{blocks}.{index}")
        for *producers, reader in sublayers:
            moved = probe_block(model, blocks, index, producers, reader, spanning)
            each = units_of(reader, moved)
            if each is not None and weights[id(block.get_parameter(f"{reader}.weight"))] > 1:
                each = NoUnits(f"several layers have the same {reader}", each.is_mixing)
            if each is not None:
                readings.append((reader, each))
    return readings


def _spanning_norms(blocks: str, linears: Set[str], differential: Differential) -> list[str]:
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
    return sorted(names - linears)


def _by_reader(
    readings: Sequence[tuple[str, Units | NoUnits]], blocks: str, differential: Differential
) -> dict[str, Units | NoUnits]:
    """Return what each reader reads in all blocks that have it, those of the largest weights first."""
    by_reader: dict[str, Units | NoUnits] = {}
    for reader, each in readings:
        before = by_reader.setdefault(reader, each)
        if before != each:
            by_reader[reader] = NoUnits(
                f"what {reader} reads is made of other units in some layers than in others",
                before.is_mixing or each.is_mixing,
            )
    sizes = dict.fromkeys(by_reader, 0)
    for name, shape in differential.shapes.items():
        reader = name.removeprefix(f"{blocks}.").partition(".")[2].removesuffix(".weight")
        if reader in sizes:
            sizes[reader] += prod(shape)
    return {reader: by_reader[reader] for reader in sorted(sizes, key=lambda each: (-sizes[each], each))}
