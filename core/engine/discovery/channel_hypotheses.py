"""Hypotheses about channels: of a sublayer, or of the experts of a mixture."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from core.engine.architectures.architecture import (
    OWN_WIDTH_KEY,
    Architecture,
    ExpertChannels,
    Experts,
    LinearNetwork,
    UnitAxis,
)
from core.engine.discovery.differential import Differential
from core.engine.discovery.readers import (
    CHANNELS,
    Hypothesis,
    Reader,
    Rows,
    count_blocks,
    in_order,
    outputs_by_size,
    owner,
)

_CHANNEL: Final = "channel"
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

    @property
    def fields(self) -> dict[str, Any]:
        """Return the architecture's facts of this setting."""
        return {"width_key": self.key, "width_factor": self.factor, "width_settings": self.others}


def channels_of_sublayers(
    architecture: Architecture, small: Differential, real: Differential
) -> Iterator[Hypothesis | str]:
    yield "no linear layer of its blocks reads channels that can be removed one by one"
    for output in outputs_by_size(architecture, small):
        readers = [Reader.of(architecture, output, each) for each in (small, real)]
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
    for output in outputs_by_size(architecture, small):
        yield from _uncounted_channels(architecture, output, small, real)


def _width_settings(reader: Reader, differential: Differential) -> Iterator[WidthSetting]:
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


def _rows_of_channels(reader: Reader, setting: WidthSetting, differential: Differential) -> Rows | str:
    """Return the rows of a channel, the same for any number of channels; or the reason against a setting."""
    if setting.others and differential.changes(setting.of(reader.features)) != frozenset():
        return "it changes more than the number of channels"
    expected: Rows | str = "it has too few channels"
    for left in (reader.features - 1, reader.features // 8 or 1):
        rows = reader.rows(differential.changes(setting.of(left)), left - reader.features)
        if isinstance(rows, str) or rows.get(reader.reading) != 1:
            return rows if isinstance(rows, str) else f"it is not the number of channels that {reader.output} reads"
        if not isinstance(expected, str) and rows != expected:
            return f"it changes other parameters with {left} channels"
        expected = rows
    return expected


def _axes_of_channels(
    architecture: Architecture, reader: Reader | None, rows: Rows | str, is_interleaved: bool
) -> tuple[UnitAxis, ...] | str:
    assert reader is not None
    if isinstance(rows, str):
        return rows
    axes: dict[str, UnitAxis] = {}
    for (name, dimension), count in rows.items():
        module, last = owner(name)
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
    return in_order(axes, architecture)


def _uncounted_channels(
    architecture: Architecture, output: str, small: Differential, real: Differential
) -> Iterator[Hypothesis]:
    """Yield channels that no setting counts: the modelling file of the pruned model then gives the widths."""
    sublayer = next(each for each in architecture.sublayers if each.output == output)
    axes: dict[str, UnitAxis] = {}
    for differential in (small, real):
        reader = Reader.of(architecture, output, differential)
        if reader is None or reader.features < differential.config.hidden_size:
            return
        for module in (name for group in sublayer.groups[:-1] for name in group):
            shape = differential.shapes.get(f"{reader.prefixes[0]}{module}.weight", (1, 1))
            times, rest = divmod(shape[1 - reader.side], reader.features)
            if rest or times not in (1, 2):
                return
            axes[module] = UnitAxis(module, "out", (_CHANNEL,) * times)
    axes[output] = UnitAxis(output, "in", (_CHANNEL,))
    ordered = in_order(axes, architecture)
    reason = f"no setting of its config is the number of channels that {output} reads"
    facts = {"width_key": OWN_WIDTH_KEY, "has_own_widths": True}
    if len(axes) > 1:
        yield Hypothesis(CHANNELS, output, ordered, ordered, facts, uncounted=reason)


# Channels of experts -------------------------------------------------------------------------------------------------


def channels_of_mixture(
    architecture: Architecture, experts: Experts, small: Differential, real: Differential
) -> Iterator[Hypothesis | str]:
    """Yield hypotheses about the channels of a mixture's experts."""
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
    layers = range(count_blocks(architecture, differential))
    reader = Reader(experts.module, tuple(f"{architecture.blocks}.{layer}." for layer in layers), 1, width)
    reading = (experts.parameter(experts.giving), 1 if experts.transposed else 2)
    expected: Rows | str = "they have too few channels"
    for left in (width - 1, width // 8 or 1):
        rows = reader.rows(differential.changes(setting.of(left)), left - width)
        if isinstance(rows, str) or rows.get(reading) != 1:
            return rows if isinstance(rows, str) else "it does not give their width"
        if not isinstance(expected, str) and rows != expected:
            return f"it changes other parameters with {left} channels"
        expected = rows
    return expected


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
        if owner(name)[0] not in architecture.linears:
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
            axes[owner(name)[0]] = UnitAxis(owner(name)[0], "out", (_CHANNEL,) * (count // sets))
    return ExpertChannels(
        tuple(stacks), LinearNetwork((*axes.values(), UnitAxis(owner(reader)[0], "in", (_CHANNEL,))), sets)
    )
