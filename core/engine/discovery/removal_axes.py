"""Removable units of an architecture: found on a small copy, then checked against the real shapes.

The config's setting for the channels of experts is found by its effect. The order of gates and gated rows in a stack is
found by the outputs of the experts' own function.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from typing import Final

import torch
from transformers import PreTrainedModel

from core.engine.architectures.architecture import (
    CHANNELS_KIND,
    COUNT_KEY,
    HEAD_DIM_KEY,
    HEADS_KEY,
    KV_HEADS_KEY,
    Architecture,
    ExpertChannels,
    Experts,
    LinearNetwork,
    UnitAxis,
)
from core.engine.architectures.units import axis_dimension, run_name
from core.engine.discovery.build import build_random
from core.engine.discovery.configuration import Settings, open_config
from core.engine.discovery.differential import Change, Differential, Shapes, one_line
from core.engine.discovery.units import CHANNELS, HEADS, WidthSetting, discover_units
from core.engine.models.experts import ExpertStacks
from secateur_wire.errors import SecateurError

_FACTORS: Final = (1, 2)
"""Possible ratios of a setting to the number of channels; 2 where it counts the gate's too."""
_CHANNEL: Final = "channel"


def with_expert_channels(
    architecture: Architecture, small: PreTrainedModel, differential: Differential, real: Differential
) -> Architecture:
    """Return an architecture whose experts have removable channels, or the reason why they have none.

    `differential` belongs to the config of a small random model, `real` to the config with its own widths.
    """
    experts = architecture.experts
    assert experts is not None
    runs = _runs_of_reading(small, architecture, experts)
    if runs is None:
        return _with_channels_refused(architecture, "their gates are stored in an order that cannot be cut")
    stacks = [UnitAxis(experts.parameter(experts.reading), "out", runs)]
    if experts.reading.bias is not None:
        stacks.append(UnitAxis(f"{experts.module}.{experts.reading.bias}", "out", runs))
    stacks.append(UnitAxis(experts.parameter(experts.giving), "in", (_CHANNEL,)))
    reasons = ["no setting of its config is their number"]
    for setting in _settings(architecture, experts, differential):
        width = _width(architecture, experts, differential.shapes)
        changes = differential.changes(setting.of(width + 1))
        if isinstance(changes, str):
            reasons.append(f"{setting.key}: {changes}")
            continue
        expected = _changes_of_stacks(architecture, experts, stacks, differential.shapes, 1)
        if not expected <= changes:
            continue
        linear = _linear_network(architecture, changes - expected)
        if isinstance(linear, str):
            reasons.append(f"{setting.key}: {linear}")
            continue
        reason = _reason_at_real_widths(setting, architecture, experts, stacks, real)
        if reason is None:
            return replace(
                architecture,
                width_key=setting.key,
                width_factor=setting.factor,
                experts=replace(experts, channels=ExpertChannels(tuple(stacks), linear)),
            )
        reasons.append(f"{setting.key}: {reason}")
    return _with_channels_refused(architecture, reasons[-1])


def _with_channels_refused(architecture: Architecture, reason: str) -> Architecture:
    refused = {**architecture.refused, CHANNELS_KIND: f"its experts lose none: {reason}"}
    return replace(architecture, refused=refused)


def _runs_of_reading(small: PreTrainedModel, architecture: Architecture, experts: Experts) -> tuple[str, ...] | None:
    """Return the runs of an expert's first matrix; None where gates neither come first nor alternate with the rest."""
    name = experts.parameter(experts.reading)
    block = next(
        each for each in small.get_submodule(architecture.blocks).children() if name in dict(each.named_parameters())
    )
    stacks = ExpertStacks(block, experts)
    if not stacks.has_gate:
        return (_CHANNEL,)
    _, rows, columns = stacks.stack(experts.reading).shape
    features = columns if experts.transposed else rows
    inputs_F = torch.rand(features, generator=torch.Generator().manual_seed(0)).add(0.5)
    slopes_CF = torch.autograd.functional.jacobian(lambda each: stacks.gated(each[None])[0], inputs_F) != 0
    channels = torch.arange(features // 2)
    if len(slopes_CF) == len(channels):
        for runs, first, second in (
            ((_CHANNEL, _CHANNEL), channels, channels + len(channels)),
            ((f"{_CHANNEL}:2",), 2 * channels, 2 * channels + 1),
        ):
            allowed_CF = torch.zeros_like(slopes_CF)
            allowed_CF[channels, first] = allowed_CF[channels, second] = True
            if bool((slopes_CF <= allowed_CF).all()):
                return runs
    return None


def _settings(architecture: Architecture, experts: Experts, differential: Differential) -> Iterator[WidthSetting]:
    """Yield the settings with the right value, then those without a value, which others determine."""
    width = _width(architecture, experts, differential.shapes)
    for factor in _FACTORS:
        yield from (
            WidthSetting(key, factor) for key, value in differential.integers.items() if value == factor * width
        )
    yield from (WidthSetting(key) for key in differential.unset if "size" in key or "dim" in key)


def _width(architecture: Architecture, experts: Experts, shapes: Shapes) -> int:
    giving = experts.parameter(experts.giving)
    name = next(name for name in shapes if name.startswith(f"{architecture.blocks}.") and name.endswith(f".{giving}"))
    return shapes[name][1 if experts.transposed else 2]


def _changes_of_stacks(
    architecture: Architecture, experts: Experts, stacks: list[UnitAxis], shapes: Shapes, more: int
) -> frozenset[Change]:
    """Return the changes in the stacks of all blocks when the number of channels grows by `more`."""
    changes = set()
    for name, shape in shapes.items():
        _, _, own = name.removeprefix(f"{architecture.blocks}.").partition(".")
        for axis in stacks:
            if own == axis.module and name.startswith(f"{architecture.blocks}."):
                features = sum(2 if run.endswith(":2") else 1 for run in axis.runs)
                is_last = (axis.side == "in") != experts.transposed
                changes.add((name, 2 if is_last and len(shape) == 3 else 1, more * features))
    return frozenset(changes)


def _reason_at_real_widths(
    setting: WidthSetting, architecture: Architecture, experts: Experts, stacks: list[UnitAxis], real: Differential
) -> str | None:
    """Return why fewer channels by this setting do not narrow the stacks as expected; None if they do."""
    width = _width(architecture, experts, real.shapes)
    for left in (width // 2, width // 8):
        changes = real.changes(setting.of(left))
        if isinstance(changes, str):
            return changes
        if not _changes_of_stacks(architecture, experts, stacks, real.shapes, left - width) <= changes:
            return "it does not give their width"
    return None


def _linear_network(architecture: Architecture, changes: Set[Change]) -> LinearNetwork | str | None:
    """Return the network of linear layers that one more channel changes beside the stacks, or the reason against it."""
    differences: dict[tuple[str, int], int] = {}
    for name, dimension, difference in changes:
        layer, _, own = name.removeprefix(f"{architecture.blocks}.").partition(".")
        module, _, last = own.rpartition(".")
        if not layer.isdecimal() or module not in architecture.linears or last not in ("weight", "bias"):
            return f"this setting also changes {name}"
        side = dimension if last == "weight" else int(architecture.transposed)
        if differences.setdefault((module, side), difference) != difference:
            return f"it changes {name} by another amount than in other layers"
    if not differences:
        return None
    inputs = int(not architecture.transposed)
    readers = [module for module, side in differences if side == inputs]
    if len(readers) != 1:
        return f"it also changes what {', '.join(sorted(readers)) or 'no layer'} reads besides the experts"
    sets = differences.pop((readers[0], inputs))
    axes = []
    for (module, _), difference in sorted(differences.items()):
        if difference not in (sets, 2 * sets):
            return f"it changes {module} by {difference}"
        axes.append(UnitAxis(module, "out", (_CHANNEL,) * (difference // sets)))
    return LinearNetwork((*axes, UnitAxis(readers[0], "in", (_CHANNEL,))), sets)


_EXPERTS = "experts"


def with_units(architecture: Architecture, small: Settings, real: Settings) -> Architecture:
    """Return an architecture with its removable units, or the reasons against them, and its setting for layers.

    `small` are the settings of a small copy of it, `real` those of a model with its own widths. The channels of a
    mixture are those of its experts, so that its linear layers are searched for heads only.
    """
    searched: tuple[str, ...] = (CHANNELS, HEADS)
    try:
        architecture = _with_layers_key(architecture, Differential(small))
        if _EXPERTS in architecture.refused:
            return _with_refusal(architecture, searched, architecture.refused[_EXPERTS])
        at_size = Differential(real)
        if architecture.experts is not None:
            model = build_random(open_config(small))
            architecture = with_expert_channels(architecture, model, Differential(small), at_size)
            searched = (HEADS,)
        sublayers = [
            [name for group in each.groups for name in group]
            for each in architecture.sublayers
            if CHANNELS in searched or HEADS in each.units
        ]
        settings = _with_shared_keys(small)
        model = build_random(open_config(settings))
        discovered = discover_units(
            model, architecture.blocks, sublayers, Differential(settings), at_size, searched
        ).of(architecture)
        for kind in searched:
            if discovered.axes(kind):
                discovered = _at_real_widths(discovered, kind, at_size)
    except Exception as error:  # the code of any type may fail in any way, and weights can still be pruned
        reason = f"its units cannot be discovered: {type(error).__name__}: {one_line(error)}"
        return _with_refusal(architecture, searched, reason)
    return discovered


def _with_layers_key(architecture: Architecture, differential: Differential) -> Architecture:
    """Return the architecture with the setting that counts its blocks, where that differs from the common name."""
    count = _count_blocks(architecture, differential.shapes)
    known = architecture.config_keys.get(COUNT_KEY, COUNT_KEY)
    others = [name for name, value in differential.integers.items() if value == count and "layer" in name]
    for key in (known, *others):
        with suppress(Exception):  # config classes validate with exceptions of any type
            if _count_blocks(architecture, Differential(differential.raw_with({key: count + 1})).shapes) == count + 1:
                named = {} if key == COUNT_KEY else {COUNT_KEY: key}
                kept = {common: own for common, own in architecture.config_keys.items() if common != COUNT_KEY}
                return replace(architecture, config_keys={**kept, **named})
    return architecture


def _count_blocks(architecture: Architecture, shapes: Shapes) -> int:
    prefix = f"{architecture.blocks}."
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})


def _with_shared_keys(settings: Settings) -> Settings:
    """Return settings of a model in which two heads share keys and values, if that can be built and run.

    Where each head has its own keys, or all share one, the probe cannot tell the two cases apart.
    """
    differential = Differential(settings)
    heads = getattr(differential.config, HEADS_KEY, None)
    keys = [name for name in differential.integers if "head" in name and ("kv" in name or "key_value" in name)]
    for key in keys:
        if type(heads) is int and heads > 3 and heads % 2 == 0 and differential.integers[key] in (1, heads):
            shared = differential.raw_with({key: heads // 2})
            try:
                model = build_random(open_config(shared))
                with torch.inference_mode():
                    model(input_ids=torch.arange(3, 9)[None], use_cache=False)
            except (SecateurError, RuntimeError, ValueError):
                continue
            return shared
    return settings


def _at_real_widths(architecture: Architecture, kind: str, differential: Differential) -> Architecture:
    """Return the architecture with the factors of the real widths, in the axes of a kind of unit.

    Refuses the kind where fewer units in the config do not narrow the reader's inputs as expected.
    """
    sublayer = architecture.sublayer_of(kind)
    assert sublayer is not None
    prefix, block = _first_block(architecture, sublayer.output, differential.shapes)
    reader = UnitAxis(sublayer.output, "in", ())
    reading = _features(architecture, reader, block)
    if kind == CHANNELS:
        counts = {"channel": reading}
        width = WidthSetting(architecture.width_key, architecture.width_factor, architecture.width_settings)
        fewer = [(width.of(left), left) for left in (reading // 2, reading // 8)]
    else:
        names = {key: architecture.config_keys.get(key, key) for key in (HEADS_KEY, KV_HEADS_KEY, HEAD_DIM_KEY)}
        heads, kv_heads = (getattr(differential.config, names[key], None) for key in (HEADS_KEY, KV_HEADS_KEY))
        if type(heads) is not int or type(kv_heads) is not int or heads % kv_heads or reading % heads:
            return _with_refusal(architecture, [kind], "its config does not give the number of heads")
        head_dim = reading // heads
        counts = {"query": heads * head_dim, "head": heads, "key": kv_heads * head_dim, "kv_head": kv_heads}
        half = {names[KV_HEADS_KEY]: max(kv_heads // 2, 1), names[HEADS_KEY]: heads // 2}
        fewer = [({**half, names[HEAD_DIM_KEY]: head_dim}, heads // 2 * head_dim)]
    for settings, left in [] if kind == CHANNELS and architecture.has_own_widths else fewer:
        changes = differential.changes(settings)
        if isinstance(changes, str):
            return _with_refusal(architecture, [kind], changes)
        change = (f"{prefix}{sublayer.output}.weight", axis_dimension(architecture, reader, 2), left - reading)
        if change not in changes:
            return _with_refusal(
                architecture,
                [kind],
                f"{', '.join(settings)} does not determine the size of the input of {sublayer.output}",
            )
    axes = []
    for axis in sublayer.units[kind]:
        is_linear = axis.module in architecture.linears
        runs = _runs_at_real_widths(axis, _features(architecture, axis, block), counts, is_linear=is_linear)
        if runs is None:
            return _with_refusal(
                architecture, [kind], f"{axis.module} has other parts than in a small copy of the model"
            )
        axes.append(replace(axis, runs=runs))
    return replace(
        architecture,
        sublayers=tuple(
            replace(each, units={**each.units, kind: tuple(axes)}) if each is sublayer else each
            for each in architecture.sublayers
        ),
    )


def _runs_at_real_widths(
    axis: UnitAxis, features: int, counts: Mapping[str, int], *, is_linear: bool
) -> tuple[str, ...] | None:
    """Return the runs of an axis with these features; None where they differ from the small copy's."""
    if sum(counts[name] * factor for name, factor in map(run_name, axis.runs)) == features:
        return axis.runs
    if not is_linear:  # for these the small copy shows only the number
        return next(((name,) for name, count in counts.items() if count == features), None)
    if len(axis.runs) > 1:
        return None
    name, _ = run_name(axis.runs[0])
    single = {"query": "head", "key": "kv_head"}.get(name, name)
    return None if features % counts[single] else (f"{single}:{features // counts[single]}",)


def _with_refusal(architecture: Architecture, kinds: Collection[str], reason: str) -> Architecture:
    return replace(
        architecture,
        sublayers=tuple(
            replace(each, units={name: axes for name, axes in each.units.items() if name not in kinds})
            for each in architecture.sublayers
        ),
        refused={**architecture.refused, **dict.fromkeys(kinds, reason)},
    )


def _first_block(architecture: Architecture, linear: str, shapes: Shapes) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the prefix of the first block with a linear layer, and its shapes by name within it."""
    weight = re.compile(rf"({re.escape(architecture.blocks)}\.[0-9]+\.){re.escape(linear)}\.weight")
    prefix = next(match[1] for name in shapes if (match := weight.fullmatch(name)))
    return prefix, {name.removeprefix(prefix): each for name, each in shapes.items() if name.startswith(prefix)}


def _features(architecture: Architecture, axis: UnitAxis, block: Mapping[str, tuple[int, ...]]) -> int:
    shape = block.get(f"{axis.module}.weight") or block[axis.module]
    is_linear = axis.module in architecture.linears
    return shape[axis_dimension(architecture, axis, len(shape)) if is_linear else 0]
