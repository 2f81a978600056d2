"""Layers that read removable units in a model's blocks, and hypotheses about the units: their settings and axes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final, TypeAlias

from core.engine.architectures.architecture import (
    CHANNELS_KIND,
    Architecture,
    ExpertChannels,
    UnitAxis,
)
from core.engine.discovery.differential import Change, Differential

CHANNELS: Final = CHANNELS_KIND
HEADS: Final = "heads"
UNIFORM: Final = "uniform"

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


def count_blocks(architecture: Architecture, differential: Differential) -> int:
    prefix = f"{architecture.blocks}."
    return len({name.removeprefix(prefix).partition(".")[0] for name in differential.shapes if name.startswith(prefix)})


@dataclass(frozen=True)
class Reader:
    """Linear layer that reads units, in the blocks of a model where it has the same number of inputs.

    `side` is the dimension of its weight's inputs.
    """

    output: str
    prefixes: tuple[str, ...]
    side: int
    features: int

    @classmethod
    def of(cls, architecture: Architecture, output: str, differential: Differential) -> "Reader | None":
        """Return the reader in a model's blocks; None where it differs among them, or there is none."""
        side = int(not architecture.transposed)
        weight = re.compile(rf"({re.escape(architecture.blocks)}\.[0-9]+\.){re.escape(output)}\.weight")
        widths = {
            match[1]: shape[side] for name, shape in differential.shapes.items() if (match := weight.fullmatch(name))
        }
        return cls(output, tuple(widths), side, *set(widths.values())) if len(set(widths.values())) == 1 else None

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


def outputs_by_size(architecture: Architecture, differential: Differential) -> list[str]:
    """Return the outputs of sublayers, the largest weights first."""
    sizes = {each.output: 0 for each in architecture.sublayers}
    for name, shape in differential.shapes.items():
        output = name.removeprefix(f"{architecture.blocks}.").partition(".")[2].removesuffix(".weight")
        if output in sizes:
            sizes[output] += prod(shape)
    return sorted(sizes, key=lambda each: -sizes[each])


def in_order(axes: Mapping[str, UnitAxis], architecture: Architecture) -> tuple[UnitAxis, ...]:
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


def times(name: str, factor: int) -> str:
    return name if factor == 1 else f"{name}:{factor}"


def owner(name: str) -> tuple[str, str]:
    """Return the module of a parameter and the parameter's own name; a parameter outside linear layers is its own."""
    module, _, last = name.rpartition(".")
    return (module, last) if last in ("weight", "bias") else (name, "")
