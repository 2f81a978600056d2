"""Choice of the units to remove until a goal is met.

A layer keeps at least one unit, and the goal is exceeded by less than one step of one group.
"""

import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from core.engine.pruning.filters.coupled_channels import CoupledChannels
from secateur_wire.errors import InvalidSparsity

_ROUNDING = 0.5
"""Tolerance in parameters, because the share is a float."""


@dataclass(frozen=True)
class Step:
    """Units of a group that are removed together; the steps of lowest `value` come first."""

    value: float
    group: int
    units: tuple[int, ...]


@dataclass(frozen=True)
class Goal:
    """Removal to reach: at least a share of the parameters and of the operations of the original model."""

    parameters: int
    flops: int
    sparsity: float
    flops_reduction: float = 0.0

    def is_met(self, parameters: int, flops: int) -> bool:
        return (
            parameters <= self.parameters * (1 - self.sparsity) + _ROUNDING
            and flops <= self.flops * (1 - self.flops_reduction) + _ROUNDING
        )

    def part(self, share: float) -> "Goal":
        """Return the goal for a share of the removal."""
        return Goal(self.parameters, self.flops, self.sparsity * share, self.flops_reduction * share)


def width_steps(units: int, round_to: int) -> list[int]:
    """Return the possible numbers of units left: all, then multiples of `round_to`, at least one of them."""
    return [units, *range((units - 1) // round_to * round_to, 0, -round_to)]


def by_score(scores: Sequence[Tensor], round_to: int) -> list[Step]:
    """Return steps of all groups ranked together, each with the mean score of its units as its value.

    Scores are [units] for each group, higher is kept; earlier units win ties.
    """
    steps = [
        Step(float(score_U[list(units)].mean()), place, units)
        for place, score_U in enumerate(scores)
        for units in _steps_of_units(score_U, round_to)
    ]
    return sorted(steps, key=lambda step: step.value)


def by_rate(scores: Sequence[Tensor], round_to: int, value: Callable[[int, float], float]) -> list[Step]:
    """Return steps of each group in the order of its own scores, with the value `value(group, rate)`.

    The rate is the share of the group that is removed after the step; ties go to the lowest rate.
    """
    steps: list[tuple[float, float, Step]] = []
    for place, score_U in enumerate(scores):
        removed = 0
        for units in _steps_of_units(score_U, round_to):
            removed += len(units)
            rate = removed / len(score_U)
            step_value = value(place, rate)
            steps.append((step_value, rate, Step(step_value, place, units)))
    return [step for *_, step in sorted(steps, key=lambda each: each[:2])]


def _steps_of_units(score_U: Tensor, round_to: int) -> list[tuple[int, ...]]:
    """Split units in ascending order of score into the steps between possible numbers of units."""
    order = torch.argsort(score_U, stable=True).tolist()
    widths = width_steps(len(order), round_to)
    return [tuple(order[len(order) - above : len(order) - below]) for above, below in pairwise(widths)]


def steps_until(steps: Sequence[Step], groups: CoupledChannels, goal: Goal) -> list[Step]:
    """Return the fewest steps, from the first on, that meet the goal.

    Raises InvalidSparsity where all steps together do not meet it; the error names a layer that would vanish and the
    largest possible removal.
    """

    def is_met(count: int) -> bool:
        removed = counts(steps[:count], groups)
        return goal.is_met(groups.parameters_after(removed), groups.flops_after(removed))

    count = bisect.bisect_left(range(len(steps) + 1), True, key=is_met)
    if count > len(steps):
        raise empty_layer_error(groups, goal, counts(steps, groups))
    return list(steps[:count])


def empty_layer_error(
    groups: CoupledChannels, goal: Goal, most: Sequence[int], name: str | None = None
) -> InvalidSparsity:
    """Return the error that a goal would remove an entire layer: the named one, else the one with the largest units."""
    if name is None and groups.groups:
        costs = [
            groups.parameters - groups.parameters_after([int(place == each) for each in range(len(most))])
            for place in range(len(most))
        ]
        name = groups.groups[costs.index(max(costs))].name
    sparsity = 1 - groups.parameters_after(most) / goal.parameters
    flops_reduction = 1 - groups.flops_after(most) / goal.flops
    requested = f"sparsity {goal.sparsity:g}" + (
        f" and flops_reduction {goal.flops_reduction:g}" if goal.flops_reduction else ""
    )
    return InvalidSparsity(
        f"{requested} would remove everything that is left of {name or 'the layers that may be pruned'}: at most "
        f"{_rounded_down(sparsity):.3f} of the model's parameters"
        + (f" and {_rounded_down(flops_reduction):.3f} of its operations" if goal.flops_reduction else "")
        + " can be removed",
        param="sparsity",
    )


def _rounded_down(share: float) -> float:
    """Return the share rounded down to three places, so that it stays possible."""
    return int(share * 1000) / 1000


def counts(steps: Sequence[Step], groups: CoupledChannels) -> list[int]:
    """Return the number of units that the steps remove from each group."""
    removed = [0] * len(groups.groups)
    for step in steps:
        removed[step.group] += len(step.units)
    return removed


def chosen(steps: Sequence[Step]) -> dict[int, list[int]]:
    """Return the steps' units by group, in the form of `CoupledChannels.remove`."""
    units: dict[int, list[int]] = defaultdict(list)
    for step in steps:
        units[step.group].extend(step.units)
    return dict(units)
