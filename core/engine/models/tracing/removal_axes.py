"""Units of an architecture as its real widths have them: found on a small copy, then checked against real shapes."""

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace

import torch

from core.engine.architectures.architecture import COUNT_KEY, HEAD_DIM_KEY, HEADS_KEY, KV_HEADS_KEY, Architecture
from core.engine.architectures.unit_axis import UnitAxis
from core.engine.architectures.unit_kind import axis_dimension, run_name
from core.engine.models.tracing.build import build_random
from core.engine.models.tracing.configuration import Settings, open_config
from core.engine.models.tracing.differential import Differential, Shapes, one_line
from core.engine.models.tracing.expert_channels import with_expert_channels
from core.engine.models.tracing.units import CHANNELS, HEADS, discover_units
from core.engine.models.tracing.width_settings import WidthSetting
from core.errors import SecateurError

_EXPERTS = "experts"


def with_units(architecture: Architecture, small: Settings, real: Settings) -> Architecture:
    """Return an architecture with the units that can be removed, or why they cannot; and its count of layers.

    `small` are the settings of a small copy of it, `real` those of a model with its own widths. The channels of a
    mixture are those of its experts, so that heads alone are sought in what its linear layers read.
    """
    sought: tuple[str, ...] = (CHANNELS, HEADS)
    try:
        architecture = _with_layers_key(architecture, Differential(small))
        if _EXPERTS in architecture.refused:
            return _refusing(architecture, sought, architecture.refused[_EXPERTS])
        at_size = Differential(real)
        if architecture.experts is not None:
            model = build_random(open_config(small))
            architecture = with_expert_channels(architecture, model, Differential(small), at_size)
            sought = (HEADS,)
        sublayers = [
            [name for group in each.groups for name in group]
            for each in architecture.sublayers
            if CHANNELS in sought or HEADS in each.units
        ]
        settings = _with_shared_keys(small)
        model = build_random(open_config(settings))
        discovered = discover_units(model, architecture.blocks, sublayers, Differential(settings), at_size, sought).of(
            architecture
        )
        for kind in sought:
            if discovered.axes(kind):
                discovered = _at_size(discovered, kind, at_size)
    except Exception as error:  # the code of any type may fail in any way, and weights can be pruned all the same
        reason = f"its units cannot be discovered: {type(error).__name__}: {one_line(error)}"
        return _refusing(architecture, sought, reason)
    return discovered


def _with_layers_key(architecture: Architecture, differential: Differential) -> Architecture:
    """Return the architecture with the setting that counts its blocks, where that has not the name it is known by."""
    count = _count_blocks(architecture, differential.shapes)
    known = architecture.config_keys.get(COUNT_KEY, COUNT_KEY)
    others = [name for name, value in differential.integers.items() if value == count and "layer" in name]
    for key in (known, *others):
        with suppress(Exception):  # config classes validate with whatever exception their authors chose
            if _count_blocks(architecture, Differential(differential.raw_with({key: count + 1})).shapes) == count + 1:
                named = {} if key == COUNT_KEY else {COUNT_KEY: key}
                kept = {common: own for common, own in architecture.config_keys.items() if common != COUNT_KEY}
                return replace(architecture, config_keys={**kept, **named})
    return architecture


def _count_blocks(architecture: Architecture, shapes: Shapes) -> int:
    prefix = f"{architecture.blocks}."
    return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})


def _with_shared_keys(settings: Settings) -> Settings:
    """Return settings of a model in which two heads share keys and values, where it can be had and runs.

    Where each head has its own, or all have the same, the probe cannot tell the two apart.
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


def _at_size(architecture: Architecture, kind: str, differential: Differential) -> Architecture:
    """Return the architecture with the factors that the real widths have, in the axes of a kind of unit.

    Refuses it where fewer units, as the config would say it, do not leave as much to be read.
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
            return _refusing(architecture, [kind], "its config does not say how many heads there are")
        head_dim = reading // heads
        counts = {"query": heads * head_dim, "head": heads, "key": kv_heads * head_dim, "kv_head": kv_heads}
        half = {names[KV_HEADS_KEY]: max(kv_heads // 2, 1), names[HEADS_KEY]: heads // 2}
        fewer = [({**half, names[HEAD_DIM_KEY]: head_dim}, heads // 2 * head_dim)]
    for settings, left in [] if kind == CHANNELS and architecture.has_own_widths else fewer:
        changes = differential.changes(settings)
        if isinstance(changes, str):
            return _refusing(architecture, [kind], changes)
        change = (f"{prefix}{sublayer.output}.weight", axis_dimension(architecture, reader, 2), left - reading)
        if change not in changes:
            return _refusing(
                architecture, [kind], f"{', '.join(settings)} does not say how much {sublayer.output} reads"
            )
    axes = []
    for axis in sublayer.units[kind]:
        is_linear = axis.module in architecture.linears
        runs = _runs_at_size(axis, _features(architecture, axis, block), counts, is_linear=is_linear)
        if runs is None:
            return _refusing(architecture, [kind], f"{axis.module} has other parts than in a small copy of the model")
        axes.append(replace(axis, runs=runs))
    return replace(
        architecture,
        sublayers=tuple(
            replace(each, units={**each.units, kind: tuple(axes)}) if each is sublayer else each
            for each in architecture.sublayers
        ),
    )


def _runs_at_size(
    axis: UnitAxis, features: int, counts: Mapping[str, int], *, is_linear: bool
) -> tuple[str, ...] | None:
    """Return the runs of an axis with so many features; None where these are others than the small copy's."""
    if sum(counts[name] * factor for name, factor in map(run_name, axis.runs)) == features:
        return axis.runs
    if not is_linear:  # of these the small copy tells nothing but the number
        return next(((name,) for name, count in counts.items() if count == features), None)
    if len(axis.runs) > 1:
        return None
    name, _ = run_name(axis.runs[0])
    single = {"query": "head", "key": "kv_head"}.get(name, name)
    return None if features % counts[single] else (f"{single}:{features // counts[single]}",)


def _refusing(architecture: Architecture, kinds: Collection[str], reason: str) -> Architecture:
    return replace(
        architecture,
        sublayers=tuple(
            replace(each, units={name: axes for name, axes in each.units.items() if name not in kinds})
            for each in architecture.sublayers
        ),
        refused={**architecture.refused, **dict.fromkeys(kinds, reason)},
    )


def _first_block(architecture: Architecture, linear: str, shapes: Shapes) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the prefix of the first block that has a linear layer, and its shapes by name within it."""
    weight = re.compile(rf"({re.escape(architecture.blocks)}\.[0-9]+\.){re.escape(linear)}\.weight")
    prefix = next(match[1] for name in shapes if (match := weight.fullmatch(name)))
    return prefix, {name.removeprefix(prefix): each for name, each in shapes.items() if name.startswith(prefix)}


def _features(architecture: Architecture, axis: UnitAxis, block: Mapping[str, tuple[int, ...]]) -> int:
    shape = block.get(f"{axis.module}.weight") or block[axis.module]
    is_linear = axis.module in architecture.linears
    return shape[axis_dimension(architecture, axis, len(shape)) if is_linear else 0]
