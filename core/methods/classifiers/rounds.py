"""Iterative pruning: deletion of a growing share, retraining with zeros kept, and a save after each round.

A resumed run begins with the unfinished round, from the weights of the round before, and ends with the same weights as
an uninterrupted run.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from core.counting import counted
from core.engine.options.axes import IterationOptions
from core.engine.pruning.layer_matrix import layer_of, set_matrix, to_matrix
from core.engine.pruning.masks import lowest
from core.engine.pruning.network import Network
from core.engine.pruning.retraining import restore_round, retrain_between, save_round
from core.engine.pruning.schedule import cubic

ROUNDS = "rounds"
"""Key of the figures with a row for each round."""


def prune_in_rounds(
    network: Network,
    parameters: IterationOptions,
    seed: int,
    cut: Callable[[float], dict[str, Any]],
    *,
    prepare: Callable[[], None] = lambda: None,
    training: Callable[[], AbstractContextManager[dict[str, Any]]] = lambda: nullcontext({}),
) -> None:
    """Prune and retrain in rounds, and save each; a run with saved rounds continues after the last.

    `cut` is called with the share of the removal to reach, exactly 1 in the last round, and returns figures. `prepare`
    is called once, before the first round. `training` is a context for the retraining and yields figures too. They can
    read their earlier figures in `network.figures`.

    Raises WorkStopped when the job is stopped; the finished rounds are saved.
    """
    done = restore_round(network)
    if done is None:
        prepare()
        save_round(network, 0)
    for number in counted(range((done or 0) + 1, parameters.rounds + 1), "rounds of pruning"):
        network.progress.raise_if_stopped()
        share = number / parameters.rounds
        if parameters.growth == "cubic":
            share = cubic(number, parameters.rounds, warm_up=0, cool_down=0)
        row = {"round": number, **cut(share)}
        with training() as figures:
            losses = train(network, parameters, parameters.retrain_steps, seed + number)
        row |= figures
        if losses:
            row |= {"first_training_loss": losses[0], "last_training_loss": losses[-1]}
        network.figures.setdefault(ROUNDS, []).append(row)
        save_round(network, number)
        network.progress.advance(number / parameters.rounds)


def train(network: Network, parameters: IterationOptions, steps: int, seed: int) -> list[float]:
    """Train on the network's images with zeros kept; return the loss of each step."""
    return retrain_between(
        network,
        steps=steps,
        learning_rate=parameters.learning_rate,
        batch_size=parameters.batch_size,
        seed=seed,
        metric="training_loss",
        done=len(network.figures.get(ROUNDS, [])) * parameters.retrain_steps,
    )


def matrices(network: Network) -> dict[str, Tensor]:
    """Return the weights of the layers by name, float32 [outputs, kernel x inputs]."""
    return {shape.name: to_matrix(layer_of(network.model, shape.name)) for shape in network.layers}


def prunable_weights(network: Network) -> int:
    return sum(shape.numel for shape in network.layers)


@torch.no_grad()
def zero_lowest(network: Network, scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Zero the `count` weights of lowest score over all layers together; weights that are zero already come first.

    Scores must be at least 0. Returns, by layer, the mask of the weights that were not zero before.
    """
    weights = matrices(network)
    flat = torch.cat([scores[name].masked_fill(weight_OI == 0, -1).flatten() for name, weight_OI in weights.items()])
    parts = lowest(flat, count).split([each.numel() for each in weights.values()])
    deleted: dict[str, Tensor] = {}
    for (name, weight_OI), part in zip(weights.items(), parts, strict=True):
        removed_OI = part.view_as(weight_OI)
        deleted[name] = removed_OI & (weight_OI != 0)
        set_matrix(layer_of(network.model, name), weight_OI.masked_fill(removed_OI, 0))
    return deleted
