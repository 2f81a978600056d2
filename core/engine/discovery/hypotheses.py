"""Hypotheses about removable units: which settings count them, and in which order their rows are stored.

The model's own constructor tells what must shrink along with a unit: a setting is changed, and the shapes are compared.
In which order a tensor has the rows of several parts is guessed from a few known orders; the self-test judges.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final, TypeAlias

from core.engine.architectures.architecture import (
    CHANNELS_KIND,
    COUNT_KEY,
    HEAD_DIM_KEY,
    HEADS_KEY,
    KV_HEADS_KEY,
    OWN_WIDTH_KEY,
    Architecture,
    ExpertChannels,
    Experts,
    LinearNetwork,
    UnitAxis,
)
from core.engine.discovery.configuration import Settings
from core.engine.discovery.differential import Change, Differential, one_line

CHANNELS: Final = CHANNELS_KIND
HEADS: Final = "heads"
UNIFORM: Final = "uniform"
_CHANNEL: Final = "channel"
_FOLLOWS: Final = "the size of a head follows from other settings, so no head can be removed"
_FACTORS: Final = (1, 2, 3, 4)
"""Possible ratios of a setting to the number of channels; 2 where it counts the gate's too."""
_OF_KEYS: Final = re.compile(r"(?<![a-z])(k|v|kv|key|value)(?![a-z])")
"""Names of layers that give keys or values, needed only where each head has its own keys."""

Rows: TypeAlias = Mapping[tuple[str, int], int]
"""Growth of each parameter's dimension, by the parameter's name within its block, for one more unit."""


@dataclass(frozen=True)
class Hypothesis:
    """Way to remove units of a kind: the axes in a small copy and in the model, and the settings of their number.

    `output` is the linear layer that reads the units. `settings` are fields of the architecture. Where no setting
    counts them, `uncounted` is the reason, and the modelling file of a pruned model gives the widths.
    """

    kind: str
    output: str
    small: tuple[UnitAxis, ...]
    real: tuple[UnitAxis, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    config_keys: Mapping[str, str] = field(default_factory=dict)
    channels: ExpertChannels | None = None
    uncounted: str | None = None

    def applied(self, architecture: Architecture, *, is_small: bool = False) -> Architecture:
        """Return the architecture, or that of its small copy, with these units."""
        axes = self.small if is_small else self.real
        experts = architecture.experts
        if self.channels is not None and experts is not None:
            experts = replace(experts, channels=self.channels)
        refused = {} if self.uncounted is None else {UNIFORM: self.uncounted}
        return replace(
            architecture,
            sublayers=tuple(
                replace(each, units={**each.units, self.kind: axes}) if each.output == self.output else each
                for each in architecture.sublayers
            ),
            experts=experts,
            config_keys={**architecture.config_keys, **self.config_keys},
            refused={**architecture.refused, **refused},
            **self.settings,
        )


def hypotheses(
    kind: str, architecture: Architecture, small: Differential, real: Differential
) -> Iterator[Hypothesis | str]:
    """Yield hypotheses about units of a kind, the most likely first, among the reasons why others do not fit.

    `small` belongs to the config of a small copy, `real` to the config with its own widths. The channels of a mixture
    are those of its experts.
    """
    try:
        if kind == HEADS:
            yield from _heads(architecture, small, real)
        elif architecture.experts is not None:
            yield from _expert_channels(architecture, architecture.experts, small, real)
        else:
            yield from _channels(architecture, small, real)
    except Exception as error:  # the code of any type may fail in any way, and weights can still be pruned
        yield f"its units cannot be discovered: {type(error).__name__}: {one_line(error)}"


def with_units(architecture: Architecture, small: Settings, real: Settings) -> Architecture:
    """Return an architecture by the first hypothesis about each kind of unit, or the reason against the kind."""
    differentials = Differential(small), Differential(real)
    for kind in (CHANNELS, HEADS):
        reasons = []
        for each in hypotheses(kind, architecture, *differentials):
            if isinstance(each, Hypothesis):
                architecture = each.applied(architecture)
                break
            reasons.append(each)
        else:
            architecture = replace(architecture, refused={**architecture.refused, kind: reasons[-1]})
    return architecture


def with_layers_key(architecture: Architecture, small: Settings) -> Architecture:
    """Return the architecture with the setting that counts its blocks, where that differs from the common name."""
    differential = Differential(small)
    count = _count_blocks(architecture, differential)
    known = architecture.config_keys.get(COUNT_KEY, COUNT_KEY)
    others = [name for name, value in differential.integers.items() if value == count and "layer" in name]
    for key in (known, *others):
        longer = differential.with_settings({key: count + 1})
        if longer is not None and _count_blocks(architecture, longer) == count + 1:
            kept = {common: own for common, own in architecture.config_keys.items() if common != COUNT_KEY}
            return replace(architecture, config_keys=kept if key == COUNT_KEY else {**kept, COUNT_KEY: key})
    return architecture


def _count_blocks(architecture: Architecture, differential: Differential) -> int:
    prefix = f"{architecture.blocks}."
    return len({name.removeprefix(prefix).partition(".")[0] for name in differential.shapes if name.startswith(prefix)})


@dataclass(frozen=True)
class _Reader:
    """Linear layer that reads units, in the blocks of a model where it has the same number of inputs.

    `side` is the dimension of its weight's inputs.
    """

    output: str
    prefixes: tuple[str, ...]
    side: int
    features: int

    @classmethod
    def of(cls, architecture: Architecture, output: str, differential: Differential) -> "_Reader | None":
        """Return the reader in a model's blocks; None where it differs among them, or there is none."""
        side = int(not architecture.transposed)
        weight = re.compile(rf"({re.escape(architecture.blocks)}\.[0-9]+\.){re.escape(output)}\.weight")
        found = {
            match[1]: shape[side] for name, shape in differential.shapes.items() if (match := weight.fullmatch(name))
        }
        return cls(output, tuple(found), side, *set(found.values())) if len(set(found.values())) == 1 else None

    def rows(self, changes: frozenset[Change] | str, more: int) -> Rows | str:
        """Return the rows of one unit in each parameter that `more` units change, or the reason against the setting."""
        if isinstance(changes, str):
            return changes
        rows: dict[tuple[str, int], int] = {}
        for name, dimension, difference in changes:
            prefix = next((each for each in self.prefixes if name.startswith(each)), None)
            if prefix is None or difference % more:
                return f"this setting also changes {name}"
            if rows.setdefault((name.removeprefix(prefix), dimension), difference // more) != difference // more:
                return f"it changes {name} by another amount than in other layers"
        return rows

    @property
    def reading(self) -> tuple[str, int]:
        return f"{self.output}.weight", self.side


def _readers(architecture: Architecture, differential: Differential) -> list[str]:
    """Return the outputs of sublayers, the largest weights first."""
    sizes = {each.output: 0 for each in architecture.sublayers}
    for name, shape in differential.shapes.items():
        output = name.removeprefix(f"{architecture.blocks}.").partition(".")[2].removesuffix(".weight")
        if output in sizes:
            sizes[output] += prod(shape)
    return sorted(sizes, key=lambda each: -sizes[each])


def _in_order(axes: Mapping[str, UnitAxis], architecture: Architecture) -> tuple[UnitAxis, ...]:
    order = {
        name: place
        for place, name in enumerate(name for each in architecture.sublayers for group in each.groups for name in group)
    }
    return tuple(
        sorted(
            axes.values(),
            key=lambda each: (order.get(each.module, len(order)), each.runs[0].startswith("k"), each.module),
        )
    )


def _times(name: str, factor: int) -> str:
    return name if factor == 1 else f"{name}:{factor}"


def _owner(name: str) -> tuple[str, str]:
    """Return the module of a parameter and the parameter's own name; a parameter outside linear layers is its own."""
    module, _, last = name.rpartition(".")
    return (module, last) if last in ("weight", "bias") else (name, "")


# Channels ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WidthSetting:
    """Setting that is `factor` times the number of channels, once `others` have these values."""

    key: str
    factor: int = 1
    others: Mapping[str, bool] = field(default_factory=dict)

    def of(self, channels: int) -> dict[str, int]:
        return {**self.others, self.key: self.factor * channels}

    @property
    def fields(self) -> dict[str, Any]:
        """Return the architecture's facts of this setting."""
        return {"width_key": self.key, "width_factor": self.factor, "width_settings": self.others}


def _channels(architecture: Architecture, small: Differential, real: Differential) -> Iterator[Hypothesis | str]:
    yield "no linear layer of its blocks reads channels that can be removed one by one"
    for output in _readers(architecture, small):
        readers = [_Reader.of(architecture, output, each) for each in (small, real)]
        if readers[0] is None or readers[1] is None:
            yield f"{output} has another number of inputs in some layers than in others"
            continue
        for setting in _width_settings(readers[0], small):
            rows = [
                _rows_of_channels(reader, setting, each)
                for reader, each in zip(readers, (small, real), strict=True)
                if reader
            ]
            for is_interleaved in (False, True):
                axes = [_axes_of_channels(architecture, readers[0], each, is_interleaved) for each in rows]
                if isinstance(axes[0], str) or axes[0] != axes[1]:
                    yield f"{setting.key}: {axes[0] if isinstance(axes[0], str) else axes[1]}"
                    break
                yield Hypothesis(CHANNELS, output, axes[0], axes[0], setting.fields)
                if all(run == "channel" for axis in axes[0] for run in axis.runs) and all(
                    len(axis.runs) == 1 for axis in axes[0]
                ):
                    break
    for output in _readers(architecture, small):
        yield from _uncounted_channels(architecture, output, small, real)


def _width_settings(reader: _Reader, differential: Differential) -> Iterator[WidthSetting]:
    """Yield settings with the right value, the most likely first: alone, then with a boolean setting switched."""
    values = differential.integers | {
        name: value[0]
        for name, value in differential.config.to_dict().items()
        if isinstance(value, list) and value and all(type(each) is int and each == value[0] for each in value)
    }
    for factor in _FACTORS:
        yield from (WidthSetting(key, factor) for key, value in values.items() if value == factor * reader.features)
        if factor == 1:
            yield from (
                WidthSetting(key) for key in differential.unset if "size" in key or "dim" in key or "inner" in key
            )
    weights = {prefix + reader.reading[0] for prefix in reader.prefixes}
    for flag, value in differential.config.to_dict().items():
        if isinstance(value, bool):
            changes = differential.changes({flag: not value})
            if isinstance(changes, frozenset) and weights & {name for name, _, _ in changes}:
                switched = (WidthSetting(key, factor, {flag: not value}) for factor in _FACTORS for key in values)
                yield from (each for each in switched if differential.changes(each.of(reader.features)) == frozenset())


def _rows_of_channels(reader: _Reader, setting: WidthSetting, differential: Differential) -> Rows | str:
    """Return the rows of a channel, the same for any number of channels; or the reason against a setting."""
    if setting.others and differential.changes(setting.of(reader.features)) != frozenset():
        return "it changes more than the number of channels"
    found: Rows | str = "it has too few channels"
    for left in (reader.features - 1, reader.features // 8 or 1):
        rows = reader.rows(differential.changes(setting.of(left)), left - reader.features)
        if isinstance(rows, str) or rows.get(reader.reading) != 1:
            return rows if isinstance(rows, str) else f"it is not the number of channels that {reader.output} reads"
        if not isinstance(found, str) and rows != found:
            return f"it changes other parameters with {left} channels"
        found = rows
    return found


def _axes_of_channels(
    architecture: Architecture, reader: _Reader | None, rows: Rows | str, is_interleaved: bool
) -> tuple[UnitAxis, ...] | str:
    assert reader is not None
    if isinstance(rows, str):
        return rows
    axes: dict[str, UnitAxis] = {}
    for (name, dimension), count in rows.items():
        module, last = _owner(name)
        if (name, dimension) == reader.reading:
            axis = UnitAxis(module, "in", (_CHANNEL,))
        elif module in architecture.linears and count in (1, 2) and not (last == "weight" and dimension == reader.side):
            axis = UnitAxis(module, "out", (f"{_CHANNEL}:2",) if count == 2 and is_interleaved else (_CHANNEL,) * count)
        elif module not in architecture.linears and count == 1 and dimension == 0:
            axis = UnitAxis(module, "out", (_CHANNEL,))
        else:
            return f"this setting also changes {name}"
        if axes.setdefault(module, axis) != axis:
            return f"it changes {name} in two ways"
    return _in_order(axes, architecture)


def _uncounted_channels(
    architecture: Architecture, output: str, small: Differential, real: Differential
) -> Iterator[Hypothesis]:
    """Yield channels that no setting counts: the modelling file of the pruned model then gives the widths."""
    sublayer = next(each for each in architecture.sublayers if each.output == output)
    axes: dict[str, UnitAxis] = {}
    for differential in (small, real):
        reader = _Reader.of(architecture, output, differential)
        if reader is None or reader.features < differential.config.hidden_size:
            return
        for module in (name for group in sublayer.groups[:-1] for name in group):
            shape = differential.shapes.get(f"{reader.prefixes[0]}{module}.weight", (1, 1))
            times, rest = divmod(shape[1 - reader.side], reader.features)
            if rest or times not in (1, 2):
                return
            axes[module] = UnitAxis(module, "out", (_CHANNEL,) * times)
    axes[output] = UnitAxis(output, "in", (_CHANNEL,))
    ordered = _in_order(axes, architecture)
    reason = f"no setting of its config is the number of channels that {output} reads"
    facts = {"width_key": OWN_WIDTH_KEY, "has_own_widths": True}
    if len(axes) > 1:
        yield Hypothesis(CHANNELS, output, ordered, ordered, facts, uncounted=reason)


# Channels of experts -------------------------------------------------------------------------------------------------


def _expert_channels(
    architecture: Architecture, experts: Experts, small: Differential, real: Differential
) -> Iterator[Hypothesis | str]:
    yield "its experts lose none: no setting of its config is their number"
    width = _expert_width(architecture, experts, small)
    settings = [
        *(
            WidthSetting(key, factor)
            for factor in (1, 2)
            for key, value in small.integers.items()
            if value == factor * width
        ),
        *(WidthSetting(key) for key in small.unset if "size" in key or "dim" in key),
    ]
    for setting in settings:
        rows = [_rows_of_experts(architecture, experts, setting, each) for each in (small, real)]
        if isinstance(rows[0], str) or rows[0] != rows[1]:
            yield f"its experts lose none: {setting.key}: {rows[0] if isinstance(rows[0], str) else rows[1]}"
            continue
        gates = rows[0].get((experts.parameter(experts.reading), 2 if experts.transposed else 1))
        for runs in ((_CHANNEL, _CHANNEL), (f"{_CHANNEL}:2",)) if gates == 2 else ((_CHANNEL,),):
            channels = _channels_of_experts(architecture, experts, rows[0], runs)
            if isinstance(channels, str):
                yield f"its experts lose none: {setting.key}: {channels}"
                break
            facts = {"width_key": setting.key, "width_factor": setting.factor}
            yield Hypothesis(CHANNELS, "", (), (), facts, channels=channels)


def _expert_width(architecture: Architecture, experts: Experts, differential: Differential) -> int:
    end = f".{experts.parameter(experts.giving)}"
    name = next(
        name for name in differential.shapes if name.startswith(f"{architecture.blocks}.") and name.endswith(end)
    )
    return differential.shapes[name][1 if experts.transposed else 2]


def _rows_of_experts(
    architecture: Architecture, experts: Experts, setting: WidthSetting, differential: Differential
) -> Rows | str:
    width = _expert_width(architecture, experts, differential)
    layers = range(_count_blocks(architecture, differential))
    reader = _Reader(experts.module, tuple(f"{architecture.blocks}.{layer}." for layer in layers), 1, width)
    reading = (experts.parameter(experts.giving), 1 if experts.transposed else 2)
    found: Rows | str = "they have too few channels"
    for left in (width - 1, width // 8 or 1):
        rows = reader.rows(differential.changes(setting.of(left)), left - width)
        if isinstance(rows, str) or rows.get(reading) != 1:
            return rows if isinstance(rows, str) else "it does not give their width"
        if not isinstance(found, str) and rows != found:
            return f"it changes other parameters with {left} channels"
        found = rows
    return found


def _channels_of_experts(
    architecture: Architecture, experts: Experts, rows: Rows, runs: tuple[str, ...]
) -> ExpertChannels | str:
    """Return the channels of experts, and of the one network of linear layers that is as wide as some of them."""
    stacks = [UnitAxis(experts.parameter(experts.reading), "out", runs)]
    if experts.reading.bias is not None:
        stacks.append(UnitAxis(f"{experts.module}.{experts.reading.bias}", "out", runs))
    stacks.append(UnitAxis(experts.parameter(experts.giving), "in", (_CHANNEL,)))
    known = {each.module for each in stacks}
    side = int(not architecture.transposed)
    others = {key: count for key, count in rows.items() if key[0] not in known}
    for name, _ in others:
        if _owner(name)[0] not in architecture.linears:
            return f"this setting also changes {name}"
    if not others:
        return ExpertChannels(tuple(stacks))
    readers = [
        (name, count) for (name, dimension), count in others.items() if name.endswith(".weight") and dimension == side
    ]
    if len(readers) != 1:
        others_reading = ", ".join(sorted(name for name, _ in readers)) or "no layer"
        return f"it also changes what {others_reading} reads besides the experts"
    ((reader, sets),) = readers
    axes = {}
    for (name, _), count in sorted(others.items()):
        if name != reader:
            if count not in (sets, 2 * sets):
                return f"it changes {name} by {count}"
            axes[_owner(name)[0]] = UnitAxis(_owner(name)[0], "out", (_CHANNEL,) * (count // sets))
    return ExpertChannels(
        tuple(stacks), LinearNetwork((*axes.values(), UnitAxis(_owner(reader)[0], "in", (_CHANNEL,))), sets)
    )


# Heads ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _HeadSettings:
    """Names of the settings for the numbers of heads and of key and value heads, and for the size of a head."""

    heads: str
    kv_heads: str | None
    head_dim: str

    @property
    def config_keys(self) -> dict[str, str]:
        """Return the names that differ from the common ones, by the common names."""
        names = {HEADS_KEY: self.heads, KV_HEADS_KEY: self.kv_heads or self.heads, HEAD_DIM_KEY: self.head_dim}
        return {common: name for common, name in names.items() if name != common}


@dataclass(frozen=True)
class _Sizes:
    """Numbers of heads and of key and value heads in a config, and the size of a head."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads

    def settings(self, names: _HeadSettings, heads: int, kv_heads: int) -> dict[str, int]:
        """Return settings with other numbers of heads of the same size."""
        counts = {names.heads: heads} | ({} if names.kv_heads is None else {names.kv_heads: kv_heads})
        return counts | {names.head_dim: self.head_dim}


def _heads(architecture: Architecture, small: Differential, real: Differential) -> Iterator[Hypothesis | str]:
    yield "no linear layer of its blocks reads heads that can be removed one by one"
    for output in _readers(architecture, small):
        readers = [_Reader.of(architecture, output, each) for each in (small, real)]
        if readers[0] is None or readers[1] is None:
            continue
        for settings in _head_settings(readers[0], small):
            if isinstance(settings, str):
                yield settings
                continue
            found = [
                _rows_of_heads(reader, settings, each)
                for reader, each in zip(readers, (small, real), strict=True)
                if reader
            ]
            reason = next((each for each in found if isinstance(each, str)), None)
            usual: list[tuple[UnitAxis, ...] | str] = []
            for is_usual in () if reason else (True, False):
                axes = [
                    _axes_of_heads(architecture, readers[0], *each, is_usual)
                    for each in found
                    if not isinstance(each, str)
                ]
                reason = next((each for each in axes if isinstance(each, str)), None)
                if reason is None and (is_usual or axes != usual):
                    facts = {"heads_divide_hidden": _divides_hidden(readers[0], settings, small)}
                    yield Hypothesis(HEADS, output, axes[0], axes[1], facts, settings.config_keys)  # type: ignore[arg-type]
                usual = axes
            if reason is not None:
                yield f"{settings.heads}: {reason}"


def _head_settings(reader: _Reader, differential: Differential) -> Iterator[_HeadSettings | str]:
    named = {name: value for name, value in differential.integers.items() if "head" in name and value > 0}
    of_keys = {name: "kv" in name or "key" in name for name in named}
    for heads in sorted(named, key=lambda name: of_keys[name]):
        if named[heads] < 2 or reader.features % named[heads] or heads == HEAD_DIM_KEY:
            continue
        head_dim, reason = _head_dim_key(reader, named[heads], differential)
        if head_dim is None:
            if reason is not None:
                yield reason
            continue
        keys: list[str | None] = [
            name for name in named if of_keys[name] and name not in (heads, head_dim) and not named[heads] % named[name]
        ]
        yield from (_HeadSettings(heads, each, head_dim) for each in keys or [None])


def _head_dim_key(reader: _Reader, heads: int, differential: Differential) -> tuple[str | None, str | None]:
    """Return the setting for the size of a head, found by its effect, or the reason why there is none."""
    width, reason = reader.features // heads, _FOLLOWS
    named = [name for name, value in differential.integers.items() if value == width and name != HEAD_DIM_KEY]
    for key in (HEAD_DIM_KEY, *named):
        for more in (2, width):
            changes = differential.changes({key: width + more})
            if isinstance(changes, frozenset) and all(
                (prefix + reader.reading[0], reader.side, heads * more) in changes for prefix in reader.prefixes
            ):
                others = sorted(name for name, _, _ in changes if not name.startswith(reader.prefixes))
                if not others:
                    return key, None
                reason = f"the setting of its head size changes {others[0]} too"
    return None, reason


def _rows_of_heads(
    reader: _Reader, names: _HeadSettings, differential: Differential
) -> tuple[Rows, Rows, _Sizes] | str:
    """Return the rows of one key and value head with its group, those of one more head in a group, and the sizes."""
    heads = getattr(differential.config, names.heads, None)
    kv_heads = heads if names.kv_heads is None else getattr(differential.config, names.kv_heads, None)
    if (
        type(heads) is not int
        or type(kv_heads) is not int
        or kv_heads < 1
        or heads % kv_heads
        or reader.features % heads
    ):
        return "its config does not give the number of heads"
    sizes = _Sizes(heads, kv_heads, reader.features // heads)
    rows: Rows | str = "no other number of heads is accepted"
    for more in (1, kv_heads):
        settings = sizes.settings(names, heads + more * sizes.group, kv_heads + more)
        rows = reader.rows(differential.changes(settings), more)
        if not isinstance(rows, str):
            break
    if isinstance(rows, str):
        return rows
    if rows.get(reader.reading) != sizes.group * sizes.head_dim:
        return f"it does not say how much {reader.output} reads"
    fewer = differential.changes(sizes.settings(names, heads // 2, max(kv_heads // 2, 1)))
    if isinstance(fewer, str):
        return fewer
    lost = (heads // 2 - heads) * sizes.head_dim
    if any((prefix + reader.reading[0], reader.side, lost) not in fewer for prefix in reader.prefixes):
        return f"{names.heads} does not determine the size of the input of {reader.output}"
    for more in (1, sizes.group):
        queries = reader.rows(
            differential.changes(sizes.settings(names, heads + more * kv_heads, kv_heads)), more * kv_heads
        )
        if not isinstance(queries, str) and queries.keys() < rows.keys():
            return rows, queries, sizes
    return rows, {}, sizes


def _divides_hidden(reader: _Reader, names: _HeadSettings, differential: Differential) -> bool:
    """Return True if a config requires that the number of heads divides the hidden size."""
    found, hidden = _rows_of_heads(reader, names, differential), differential.config.hidden_size
    assert not isinstance(found, str)
    sizes = found[-1]
    odd = next(each for each in range(1, hidden + 2) if hidden % (sizes.heads + each * sizes.group))
    settings = sizes.settings(names, sizes.heads + odd * sizes.group, sizes.kv_heads + odd)
    return isinstance(differential.changes(settings), str)


def _axes_of_heads(
    architecture: Architecture, reader: _Reader | None, rows: Rows, queries: Rows, sizes: _Sizes, is_usual: bool
) -> tuple[UnitAxis, ...] | str:
    """Return the axes of heads; `queries` are the rows of a query head, empty where they are not known."""
    assert reader is not None
    axes: dict[str, UnitAxis] = {}
    for (name, dimension), count in rows.items():
        module, last = _owner(name)
        if (name, dimension) == reader.reading:
            axis = UnitAxis(module, "in", ("query",))
        else:
            of_query = sizes.group * queries.get((name, dimension), 0) if queries else _guessed(module, count, sizes)
            is_linear = module in architecture.linears
            runs = _runs(of_query, count - of_query, sizes, is_usual)
            if dimension == (reader.side if is_linear and last == "weight" else 1) or (not is_linear and len(runs) > 1):
                return f"this setting also changes {name}"
            axis = UnitAxis(module, "out", runs)
        if axes.setdefault(module, axis) != axis:
            return f"it changes {name} in two ways"
    return _in_order(axes, architecture)


def _guessed(module: str, count: int, sizes: _Sizes) -> int:
    """Return the rows of queries where each head has its own keys: those that no name of keys says to be theirs."""
    if _OF_KEYS.search(module.rpartition(".")[2]):
        return 0
    fused = (sizes.group + 2) * sizes.head_dim
    return sizes.group * sizes.head_dim if count == fused else count


def _runs(of_query: int, of_key: int, sizes: _Sizes, is_usual: bool) -> tuple[str, ...]:
    """Return the runs of a layer's rows: queries, then keys and values.

    Usually a head's parts lie side by side where a layer has only queries or only keys and values; and keys come before
    values where it has all three.
    """
    runs: list[str] = []
    for rows, heads, features, one in ((of_query, sizes.group, "query", "head"), (of_key, 1, "key", "kv_head")):
        if rows:
            each, rest = divmod(rows // heads, sizes.head_dim)
            is_apart = (of_query and features == "key") == is_usual
            if rest:
                runs.append(_times(one, rows // heads))
            else:
                runs += [features] * each if is_apart else [_times(features, each)]
    return tuple(runs)
