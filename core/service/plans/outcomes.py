"""Outcomes of jobs in one form, both the shipped measurements and the team's own jobs."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, Literal, TypeAlias

from core.engine.options.patterns import parse_pattern
from core.measurements.measurement import Measurement
from core.measurements.reader import measurements
from core.methods.registry import METHODS, get_method, parse_parameters
from secateur_wire.errors import InvalidParameters, InvalidPattern
from secateur_wire.plans import FigureSource

Latency: TypeAlias = Literal["prefill", "decode"]
_UNIMPORTANT: Final = frozenset({"seed", "round_to"})
"""Parameters in which comparable outcomes may differ."""


@dataclass(frozen=True)
class Setting:
    """Everything that decides the loss of a removal, except the amount and the model."""

    method: str
    pattern: str
    layout: str
    parameters: str
    recovery: str | None = None

    @property
    def shrinks(self) -> bool:
        """Return whether parts of the model are removed, so that it gets smaller."""
        return get_method(self.method).variant(self.pattern).shrinks

    @property
    def unrecovered(self) -> "Setting":
        return Setting(self.method, self.pattern, self.layout, self.parameters)


@dataclass(frozen=True)
class Subject:
    """Model of an outcome or of a question. `prunable` is the number of parameters that can be removed."""

    family: str
    parameters: int
    prunable: int
    revision: str | None = None
    name: str = ""


@dataclass(frozen=True)
class Outcome:
    """Figures of a job: the removed share of what can be removed, and ln(pruned / dense perplexity) by text.

    `unrecovered` is this excess before a recovery. `deviation` is its standard deviation over seeds, None for a single
    seed. `answers` is the KL divergence a token along the dense answers, by set of questions. `latency` is pruned /
    dense.
    """

    setting: Setting
    subject: Subject
    source: FigureSource
    share: float
    excess: Mapping[str, float]
    unrecovered: Mapping[str, float] = field(default_factory=dict)
    deviation: float | None = None
    answers: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[Latency, float] = field(default_factory=dict)
    latency_spread: float = 0.0
    device: str | None = None
    calibration_tokens: int = 0
    calibration: str | None = None

    @property
    def before_recovery(self) -> "Outcome | None":
        """Return the outcome before its recovery, None where there was none."""
        if not self.unrecovered:
            return None
        return replace(
            self, setting=self.setting.unrecovered, excess=self.unrecovered, unrecovered={}, answers={}, latency={}
        )


def setting_of(
    method: str,
    pattern: str,
    layout: str,
    parameters: Mapping[str, object],
    recovery: Mapping[str, object] | None = None,
) -> Setting | None:
    """Return the setting of a job with calibration, with defaults for its parameters; None for an unknown one."""
    if method not in METHODS:
        return None
    try:
        has_one_rate = parse_pattern(pattern).is_n_m
        checked = parse_parameters(method, parameters, pattern)
    except (InvalidParameters, InvalidPattern):  # The row comes from an earlier release.
        return None
    checked = checked.with_refit()
    unimportant = _UNIMPORTANT | ({"allocation"} if has_one_rate else set())
    chosen = {name: value for name, value in checked.model_dump(mode="json").items() if name not in unimportant}
    return Setting(method, pattern, layout, json.dumps(chosen, sort_keys=True), recovery_of(recovery))


def recovery_of(recovery: Mapping[str, object] | None) -> str | None:
    """Return the method of a recovery and the length of its training, None without a recovery."""
    if recovery is None:
        return None
    minutes, steps = recovery.get("minutes"), recovery.get("steps")
    return f"{recovery.get('method')}, {f'{minutes:g} minutes' if minutes is not None else f'{steps} steps'}"


@cache
def shipped_outcomes() -> tuple[Outcome, ...]:
    """Return the outcomes shipped with this release."""
    rows = (*measurements("structured"), *measurements("zeros"))
    return tuple(outcome for row in rows if (outcome := outcome_of(row)) is not None)


def outcome_of(row: Measurement) -> Outcome | None:
    """Return a measured row as an outcome; None where this release does not know its setting."""
    setting = setting_of(row.method, row.pattern, row.layout, row.parameters, row.recovery)
    if setting is None:
        return None
    share = row.blocks if setting.shrinks else row.sparsity
    if share is None:
        return None
    model = row.model
    prunable = round(row.sparsity / share * model.parameters) if setting.shrinks else model.parameters
    deviations = [each.deviation / each.mean for each in row.perplexity.values() if each.deviation is not None]
    latency: dict[Latency, float] = {}
    if row.prefill is not None:
        latency["prefill"] = row.prefill.ratio
    if row.decode is not None:
        latency["decode"] = row.decode.ratio
    return Outcome(
        setting=setting,
        subject=Subject(model.family, model.parameters, prunable, name=model.name),
        source="measurements",
        share=share,
        excess={text: math.log(each.mean) for text, each in row.perplexity.items()},
        deviation=max(deviations, default=None),
        latency=latency,
        latency_spread=max((each.spread for each in (row.prefill, row.decode) if each is not None), default=0.0),
        calibration_tokens=row.calibration_tokens,
        calibration=row.calibration,
    )
