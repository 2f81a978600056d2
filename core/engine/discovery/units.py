"""Units of an architecture: channels of its FFN and heads of its attention, and the settings that count them.

A cut is offered only where two findings agree: the probe of a tiny copy, which shows the dependencies, and the
differential of its config, which shows the effect of the number of units on every parameter.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from math import prod
from typing import Final

from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.engine.architectures.architecture import (
    HEAD_DIM_KEY,
    HEADS_KEY,
    KV_HEADS_KEY,
    OWN_WIDTH_KEY,
    Architecture,
    UnitAxis,
)
from core.engine.discovery.differential import Change, Differential
from core.engine.discovery.probe import block_kinds, probe_block
from core.engine.discovery.unit_layout import BlockCut, NoUnits, Units, block_cut, probed_axes, unit_axes, units_of


@dataclass(frozen=True)
class HeadSettings:
    """Names of settings: the number of heads, the number of key and value heads, and the size of a head.

    Without separate key and value heads, `kv_heads` equals `heads`. `divide_hidden`: the config requires that the
    number of heads divides the hidden size.
    """

    heads: str
    kv_heads: str
    head_dim: str
    divide_hidden: bool

    @property
    def config_keys(self) -> dict[str, str]:
        """Return the names that differ from the common ones, by the common names."""
        names = {HEADS_KEY: self.heads, KV_HEADS_KEY: self.kv_heads, HEAD_DIM_KEY: self.head_dim}
        return {common: name for common, name in names.items() if name != common}


def find_head_settings(
    cut: BlockCut, units: Units, differential: Differential, linears: Sequence[str]
) -> tuple[HeadSettings, tuple[UnitAxis, ...]] | str:
    """Return the settings that count the heads of some blocks and the axes of one more unit, or why none do."""
    head_dim, beyond = _head_dim_key(cut, units, differential)
    if head_dim is None:
        return FOLLOWS if beyond is None else f"the setting of its head size changes {beyond} too"
    reasons = []
    for heads, kv_heads in _head_count_candidates(units, differential):
        counts = {heads: (units.heads, units.group)} | ({} if kv_heads is None else {kv_heads: (units.units, 1)})
        for number in (1, units.units):
            changes = differential.changes(_with_more_units(counts, number) | {head_dim: units.head_width})
            if isinstance(changes, str):
                reasons += [f"{heads}: {changes}"] if number == units.units else []
                continue
            if not cut.reading(number) <= changes:
                reasons.insert(0, f"{heads}: it does not say how much {units.reader} reads")
                break
            axes = unit_axes(cut, changes, number, differential, linears)
            if isinstance(axes, str):
                reasons.append(f"{heads}: {axes}")
                break
            hidden = differential.config.hidden_size
            odd = next(each for each in range(1, hidden + 2) if hidden % (units.heads + each * units.group))
            unlike = differential.changes(_with_more_units(counts, odd) | {head_dim: units.head_width})
            return HeadSettings(heads, kv_heads or heads, head_dim, isinstance(unlike, str)), axes
    return reasons[0] if reasons else f"no setting of its config is the number of heads that {units.reader} reads"


def _with_more_units(counts: Mapping[str, tuple[int, int]], number: int) -> dict[str, int]:
    """Return the settings for `number` more units, from their values and their steps per unit."""
    return {key: value + number * step for key, (value, step) in counts.items()}


def _head_count_candidates(units: Units, differential: Differential) -> Iterator[tuple[str, str | None]]:
    """Yield candidates for the numbers of heads and of key and value heads, the most likely first."""
    named = {name: value for name, value in differential.integers.items() if "head" in name}
    heads = sorted(
        (name for name, value in named.items() if value == units.heads), key=lambda name: "kv" in name or "key" in name
    )
    keys = [name for name, value in named.items() if value == units.units]
    yield from ((each, key) for each in heads for key in keys if key != each)
    if units.group == 1:
        yield from ((each, None) for each in heads)


def _head_dim_key(cut: BlockCut, units: Units, differential: Differential) -> tuple[str | None, str | None]:
    """Return the setting for the size of a head, found by its effect; the config may not name it.

    If each setting with this effect also changes a parameter outside the cut's blocks, return such a parameter instead.
    """
    beyond: str | None = None
    named = [
        name for name, value in differential.integers.items() if value == units.head_width and name != HEAD_DIM_KEY
    ]
    for key in (HEAD_DIM_KEY, *named):
        for more in (2, units.head_width):
            changes = differential.changes({key: units.head_width + more})
            reading = {(name, side, units.heads * more) for name, side, _ in cut.reading(1)}
            if isinstance(changes, frozenset) and reading <= changes:
                others = sorted(name for name, _, _ in changes if not name.startswith(cut.prefixes))
                if not others:
                    return key, None
                beyond = beyond or others[0]
    return None, beyond


_FACTORS: Final = (1, 2, 3, 4)
"""Possible ratios of a setting to the number of channels; 2 where it counts the gate's too."""


@dataclass(frozen=True)
class WidthSetting:
    """Setting that is `factor` times the number of channels, once `others` have these values."""

    key: str
    factor: int = 1
    others: Mapping[str, bool] = field(default_factory=dict)

    def of(self, channels: int) -> dict[str, int]:
        return {**self.others, self.key: self.factor * channels}


def width_settings(
    cut: BlockCut, small: Differential, real: Differential
) -> Iterator[tuple[WidthSetting, frozenset[Change]]]:
    """Yield the settings for the number of channels, with all changes by one more channel in the small copy.

    At the small copy's widths and at the real ones, fewer channels must narrow the reader's inputs as expected.
    """
    channels = cut.units.units
    for setting in _width_candidates(cut, small):
        changes = small.changes(setting.of(channels + 1))
        if isinstance(changes, str) or not cut.reading(1) <= changes:
            continue
        if _sets_channels(setting, cut, small, channels) and _sets_channels(setting, cut, real, cut.reads(real.shapes)):
            yield setting, changes


def _width_candidates(cut: BlockCut, small: Differential) -> Iterator[WidthSetting]:
    """Yield settings with the right value, the most likely first: alone, then with a boolean setting switched."""
    channels = cut.units.units
    values = small.integers | {
        name: value[0]
        for name, value in small.config.to_dict().items()
        if isinstance(value, list) and value and all(type(each) is int and each == value[0] for each in value)
    }
    for factor in _FACTORS:
        yield from (WidthSetting(key, factor) for key, value in values.items() if value == factor * channels)
        if factor == 1:
            yield from (WidthSetting(key) for key in small.unset)
    weights = {name for name, _, _ in cut.reading(1)}
    for flag, value in small.config.to_dict().items():
        if isinstance(value, bool):
            changes = small.changes({flag: not value})
            if isinstance(changes, frozenset) and weights & {name for name, _, _ in changes}:
                settings = (WidthSetting(key, factor, {flag: not value}) for factor in _FACTORS for key in values)
                yield from (each for each in settings if small.changes(each.of(channels)) == frozenset())


def _sets_channels(setting: WidthSetting, cut: BlockCut, differential: Differential, channels: int) -> bool:
    """Return True if a setting determines the number of channels, now `channels`, also when there are fewer."""
    if setting.others and differential.changes(setting.of(channels)) != frozenset():
        return False
    fewer = (differential.changes(setting.of(left)) for left in (channels // 2, channels // 8))
    lost = (channels // 2 - channels, channels // 8 - channels)
    return all(
        isinstance(each, frozenset) and cut.reading(more) <= each for more, each in zip(lost, fewer, strict=True)
    )


CHANNELS = "channels"
HEADS = "heads"
UNIFORM = "uniform"


@dataclass(frozen=True)
class DiscoveredUnits:
    """Units that can be removed from a block, by the linear layer that reads them, and how the config counts them.

    `units` has the axes of each kind by that layer, `width` counts channels. `refused` has the reason why a kind of
    unit cannot be removed.
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
class _CountedUnits:
    reader: str
    axes: tuple[UnitAxis, ...]
    width: WidthSetting | None = None
    heads: HeadSettings | None = None
    uncounted: str | None = None
    """Reason why the config does not count the units, so that the modelling file must."""


def discover_units(
    model: PreTrainedModel,
    blocks: str,
    sublayers: Sequence[Sequence[str]],
    differential: Differential,
    real: Differential,
    kinds: Collection[str] = (CHANNELS, HEADS),
) -> DiscoveredUnits:
    """Return the units of a tiny model that `randomise` has changed, and whose config is the differential's.

    Only units of the `kinds` are searched. `real` is the differential of the config with its own widths. `sublayers`
    are the linear layers of each part of a block that adds to the residual stream, in order of execution; the last of
    each reads the units. A block may have only some of them.
    """
    finder = _Finder(model, blocks, sublayers, differential, real)
    finding = {HEADS: finder.heads, CHANNELS: finder.channels}
    cuts = {kind: find() for kind, find in finding.items() if kind in kinds}
    possible = {kind: cut for kind, cut in cuts.items() if isinstance(cut, _CountedUnits)}
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
    """Search for the units of a model among the inputs of its readers, the largest weights first."""

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
        self._readings = _by_reader(_probed_readers(model, blocks, sublayers, differential), blocks, differential)

    def channels(self) -> _CountedUnits | str:
        """Return the cut of an FFN's channels, the largest that the config counts, or the reason against it."""
        reasons = []
        uncounted: list[_CountedUnits] = []
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
                    return _CountedUnits(units.reader, axes, width=setting)
                reasons.append(f"{setting.key}: {axes}")
            reasons.append(f"no setting of its config is the number of channels that {units.reader} reads")
            axes = probed_axes(cut, self._linears)
            if not isinstance(axes, str) and units.units >= self._differential.config.hidden_size:
                uncounted.append(_CountedUnits(units.reader, axes, uncounted=reasons[-1]))
        if uncounted:
            return uncounted[0]
        return reasons[0] if reasons else "no linear layer of its blocks reads channels that can be removed one by one"

    def heads(self) -> _CountedUnits | str:
        """Return the cut of an attention's heads, or the reason against the best candidate."""
        reasons = [(0, "no linear layer of its blocks reads heads that can be removed one by one")]
        for reader, units in self._readings.items():
            if not units.is_mixing:
                continue
            if isinstance(units, NoUnits):
                reasons.append((2, units.reason))
            elif units.head_width == 1 or not any(run.query for runs in units.runs.values() for run in runs):
                reasons.append((1, f"what {reader} reads has no heads: {_reason_without_heads(units)}"))
            else:
                settings = find_head_settings(self._cut(units), units, self._differential, self._linears)
                if not isinstance(settings, str):
                    return _CountedUnits(reader, settings[1], heads=settings[0])
                reasons.append((3, settings))
        return max(reasons, key=lambda each: each[0])[1]

    def _cut(self, units: Units) -> BlockCut:
        return block_cut(units, self._differential, self._blocks, is_transposed=self._is_transposed)


def _reason_without_heads(units: Units) -> str:
    if units.spanned:
        return f"each row of {units.spanned[0]} affects all of its output, as a norm over all heads does"
    return "each feature has a state of its own over time"


def _probed_readers(
    model: PreTrainedModel, blocks: str, sublayers: Sequence[Sequence[str]], differential: Differential
) -> list[tuple[str, Units | NoUnits]]:
    """Return the inputs of each reader in each kind of block: its units, or the reason why it has none."""
    readings = []
    weights = Counter(
        id(each) for block in model.get_submodule(blocks).children() for each in dict(block.named_parameters()).values()
    )
    spanning = _norms_over_units(blocks, {name for each in sublayers for name in each}, differential)
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


def _norms_over_units(blocks: str, linears: Set[str], differential: Differential) -> list[str]:
    """Return the norms within blocks that have a weight for each feature of all units and so connect all units.

    Such a norm has a vector that grows with a setting which changes blocks only, not the hidden size.
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
    """Return each reader's units in all blocks that have it, the readers of the largest weights first."""
    by_reader: dict[str, Units | NoUnits] = {}
    for reader, each in readings:
        before = by_reader.setdefault(reader, each)
        if before != each:
            by_reader[reader] = NoUnits(
                f"what {reader} reads consists of different units in different layers",
                before.is_mixing or each.is_mixing,
            )
    sizes = dict.fromkeys(by_reader, 0)
    for name, shape in differential.shapes.items():
        reader = name.removeprefix(f"{blocks}.").partition(".")[2].removesuffix(".weight")
        if reader in sizes:
            sizes[reader] += prod(shape)
    return {reader: by_reader[reader] for reader in sorted(sizes, key=lambda each: (-sizes[each], each))}


FOLLOWS: Final = "the size of a head follows from other settings, so no head can be removed"
