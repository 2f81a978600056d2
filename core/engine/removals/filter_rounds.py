"""Rounds of a method that removes filters: choose, remove, retrain, save."""

from collections.abc import Mapping
from typing import Any, Protocol

from core.engine.pruning.filters.budget import Goal, Step, chosen
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.iterative.retraining import retrain_between
from core.engine.pruning.iterative.saved_rounds import restore_round, save_round
from core.engine.pruning.network import Network
from core.engine.removals.filters import FilterParameters

FIGURES = "filters"
"""Key in the report for the units removed from each group and the sizes after each round."""


class Choice(Protocol):
    def __call__(self, groups: CoupledChannels, goal: Goal, number: int) -> list[Step] | None:
        """Choose the steps of a round, counted from 0; None ends the rounds."""


def remove_in_rounds(
    network: Network, parameters: FilterParameters, choose: Choice, *, retrain_steps: int, flops_reduction: float = 0.0
) -> None:
    """Remove the units that `choose` returns and retrain, round by round, from the last saved round on.

    Raises WorkStopped when the job is stopped, InvalidSparsity where a goal would remove an entire layer.
    """
    image_shape = network.calibration.batch([0]).shape[1:]
    layers = [layer.name for layer in network.layers]
    saved = restore_round(network)
    if saved is not None:
        network.figures.update(saved[1])
    groups = CoupledChannels.of(network.model, image_shape, is_checked=saved is not None).among(layers)
    if saved is None:
        network.figures[FIGURES] = _dense(groups)
    record = network.figures[FIGURES]
    number = saved[0] if saved is not None else 0
    goal = Goal(record["parameters"]["before"], record["flops"]["before"], network.sparsity, flops_reduction)
    while (steps := choose(groups, goal, number)) is not None:
        groups.remove(chosen(steps))
        losses = retrain_between(
            network,
            steps=retrain_steps,
            learning_rate=parameters.retrain_learning_rate,
            batch_size=parameters.retrain_batch_size,
            seed=parameters.seed + number,
            metric="retraining_loss",
            done=number * retrain_steps,
        )
        groups = CoupledChannels.of(network.model, image_shape, is_checked=True).among(layers)
        number += 1
        _update(record, groups, loss=losses[-1] if losses else None)
        network.progress.metric("parameters", number, groups.parameters)
        network.progress.metric("flops", number, groups.flops)
        network.progress.advance(_done(groups, goal))
        save_round(network, number, network.figures)
        network.progress.raise_if_stopped()
    network.progress.advance(1.0)


def _dense(groups: CoupledChannels) -> dict[str, Any]:
    return {
        "parameters": {"before": groups.parameters, "after": groups.parameters},
        "flops": {"before": groups.flops, "after": groups.flops},
        "groups": [
            {
                "name": group.name,
                "kind": group.kind,
                "layers": [member.name for member in group.writers],
                "before": group.units,
                "after": group.units,
            }
            for group in groups.groups
        ],
        "rounds": [],
    }


def _update(record: dict[str, Any], groups: CoupledChannels, *, loss: float | None) -> None:
    left: Mapping[str, int] = {group.name: group.units for group in groups.groups}
    for each in record["groups"]:
        each["after"] = left.get(each["name"], 1)  # a group of one unit cannot shrink, so `left` does not list it
    record["parameters"]["after"], record["flops"]["after"] = groups.parameters, groups.flops
    record["rounds"].append({"parameters": groups.parameters, "flops": groups.flops, "loss": loss})


def _done(groups: CoupledChannels, goal: Goal) -> float:
    """Return the progress towards the goal, from 0 to 1."""
    shares = [
        (1 - left / before) / requested
        for left, before, requested in (
            (groups.parameters, goal.parameters, goal.sparsity),
            (groups.flops, goal.flops, goal.flops_reduction),
        )
        if requested
    ]
    return max(0.0, min([1.0, *shares]))
