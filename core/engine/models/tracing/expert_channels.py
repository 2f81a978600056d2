"""Channels of experts: the setting of the config that counts them, and what else has as many, found by what it changes.

In which order a stack has gates and what they gate is seen in what the experts' own function makes of numbers.
"""

from collections.abc import Iterator, Set
from dataclasses import replace
from typing import Final

import torch
from transformers import PreTrainedModel

from core.engine.architectures.architecture import CHANNELS_KIND, Architecture
from core.engine.architectures.experts import ExpertChannels, Experts, LinearNetwork
from core.engine.architectures.unit_axis import UnitAxis
from core.engine.models.experts import ExpertStacks
from core.engine.models.tracing.differential import Change, Differential, Shapes
from core.engine.models.tracing.width_settings import WidthSetting

_FACTORS: Final = (1, 2)
"""Numbers that a config may have for each channel: 2 where it counts those of the gate too."""
_CHANNEL: Final = "channel"


def with_expert_channels(
    architecture: Architecture, small: PreTrainedModel, differential: Differential, real: Differential
) -> Architecture:
    """Return an architecture whose experts have the channels that every one can lose, or why they have none.

    `differential` is that of the config of a small random model, `real` that of the config with its own widths.
    """
    experts = architecture.experts
    assert experts is not None
    runs = _runs_of_reading(small, architecture, experts)
    if runs is None:
        return _refusing(architecture, "their gates are in an order for which there is no cut")
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
        reason = _reason_at_size(setting, architecture, experts, stacks, real)
        if reason is None:
            return replace(
                architecture,
                width_key=setting.key,
                width_factor=setting.factor,
                experts=replace(experts, channels=ExpertChannels(tuple(stacks), linear)),
            )
        reasons.append(f"{setting.key}: {reason}")
    return _refusing(architecture, reasons[-1])


def _refusing(architecture: Architecture, reason: str) -> Architecture:
    refused = {**architecture.refused, CHANNELS_KIND: f"its experts lose none: {reason}"}
    return replace(architecture, refused=refused)


def _runs_of_reading(small: PreTrainedModel, architecture: Architecture, experts: Experts) -> tuple[str, ...] | None:
    """Return the runs of an expert's first matrix; None where its gates lie neither before nor beside the rest."""
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
    """Yield the settings that have the right value, then those that have none, so that others decide."""
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
    """Return what so many more channels change in the stacks of all blocks."""
    changes = set()
    for name, shape in shapes.items():
        _, _, own = name.removeprefix(f"{architecture.blocks}.").partition(".")
        for axis in stacks:
            if own == axis.module and name.startswith(f"{architecture.blocks}."):
                features = sum(2 if run.endswith(":2") else 1 for run in axis.runs)
                is_last = (axis.side == "in") != experts.transposed
                changes.add((name, 2 if is_last and len(shape) == 3 else 1, more * features))
    return frozenset(changes)


def _reason_at_size(
    setting: WidthSetting, architecture: Architecture, experts: Experts, stacks: list[UnitAxis], real: Differential
) -> str | None:
    """Return why fewer channels, as the config would say it, do not leave as much of the stacks; None if they do."""
    width = _width(architecture, experts, real.shapes)
    for left in (width // 2, width // 8):
        changes = real.changes(setting.of(left))
        if isinstance(changes, str):
            return changes
        if not _changes_of_stacks(architecture, experts, stacks, real.shapes, left - width) <= changes:
            return "it does not say how wide they are"
    return None


def _linear_network(architecture: Architecture, changes: Set[Change]) -> LinearNetwork | str | None:
    """Return the network of linear layers that one channel more changes beside the stacks; or what is no such."""
    differences: dict[tuple[str, int], int] = {}
    for name, dimension, difference in changes:
        layer, _, own = name.removeprefix(f"{architecture.blocks}.").partition(".")
        module, _, last = own.rpartition(".")
        if not layer.isdecimal() or module not in architecture.linears or last not in ("weight", "bias"):
            return f"it changes {name} too"
        side = dimension if last == "weight" else int(architecture.transposed)
        if differences.setdefault((module, side), difference) != difference:
            return f"it changes {name} by another number than in other layers"
    if not differences:
        return None
    inputs = int(not architecture.transposed)
    readers = [module for module, side in differences if side == inputs]
    if len(readers) != 1:
        return f"it changes what {', '.join(sorted(readers)) or 'no layer'} reads beside the experts"
    sets = differences.pop((readers[0], inputs))
    axes = []
    for (module, _), difference in sorted(differences.items()):
        if difference not in (sets, 2 * sets):
            return f"it changes {module} by {difference}"
        axes.append(UnitAxis(module, "out", (_CHANNEL,) * (difference // sets)))
    return LinearNetwork((*axes, UnitAxis(readers[0], "in", (_CHANNEL,))), sets)
