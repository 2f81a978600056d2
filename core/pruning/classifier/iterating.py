"""Pruning and retraining in turn: deletion to a growing share, retraining with zeros held, all of it saved after each.

A run that is taken up again begins with the round that was not finished, from the weights the round before left, and
ends with the weights of one that was never interrupted.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from core.catalogue.classic_parameters import Iterated
from core.counting import counted
from core.pruning.classifier.matrices import layer_of, set_matrix, to_matrix
from core.pruning.classifier.retraining import retrain_between
from core.pruning.classifier.scene import Scene
from core.pruning.masks import lowest
from core.pruning.recovery.training import RecoveryStopped
from core.pruning.schedule import cubic

ROUNDS = "rounds"
"""Of the figures: a row for each round."""


def share_gone(done: int, parameters: Iterated) -> float:
    """The share of what is to go that is gone after so many rounds, exactly 1 after the last."""
    if parameters.growth == "cubic":
        return cubic(done, parameters.rounds, warm_up=0, cool_down=0)
    return done / parameters.rounds


def prune_in_rounds(
    scene: Scene,
    parameters: Iterated,
    seed: int,
    cut: Callable[[float], dict[str, Any]],
    *,
    prepare: Callable[[], None] = lambda: None,
    training: Callable[[], AbstractContextManager[dict[str, Any]]] = lambda: nullcontext({}),
) -> None:
    """`cut` is told the share of what is to go that must be gone after it, and returns figures; `prepare` is what is
    done once, before the first round; `training` is entered while the rest is retrained and gives figures too. They
    find in `scene.figures` what they left there.

    Raises RecoveryStopped once asked to stop; the rounds that are done are saved.
    """
    done = resume(scene)
    if done is None:
        prepare()
        save(scene, 0)
    for number in counted(range((done or 0) + 1, parameters.rounds + 1), "rounds of pruning"):
        stop_if_asked(scene)
        row = {"round": number, **cut(share_gone(number, parameters))}
        with training() as figures:
            losses = train(scene, parameters, parameters.retrain_steps, seed + number)
        row |= figures
        if losses:
            row |= {"first_training_loss": losses[0], "last_training_loss": losses[-1]}
        scene.figures.setdefault(ROUNDS, []).append(row)
        save(scene, number)
        scene.observer.on_progress(number / parameters.rounds)


def train(scene: Scene, parameters: Iterated, steps: int, seed: int) -> list[float]:
    """Train on the scene's images, zeros held; the loss of each step."""
    return retrain_between(
        scene,
        steps=steps,
        learning_rate=parameters.learning_rate,
        batch_size=parameters.batch_size,
        seed=seed,
        metric="training_loss",
        done=len(scene.figures.get(ROUNDS, [])) * parameters.retrain_steps,
    )


def stop_if_asked(scene: Scene) -> None:
    """Raises RecoveryStopped."""
    if scene.observer.should_stop():
        raise RecoveryStopped


def resume(scene: Scene) -> int | None:
    """Rounds that an earlier attempt did, its model and figures restored; None where there is nothing."""
    saved = scene.rounds.newest() if scene.rounds is not None else None
    if saved is None:
        return None
    saved.restore(scene.model)
    scene.figures.update(saved.state["figures"])
    scene.notes[:] = saved.state["notes"]
    scene.observer.on_log(f"continuing after round {saved.number}")
    return saved.number


def save(scene: Scene, number: int) -> None:
    if scene.rounds is not None:
        scene.rounds.save(number, scene.model, {"figures": scene.figures, "notes": scene.notes})


def matrices(scene: Scene) -> dict[str, Tensor]:
    """The weights of the layers by name, float32 [outputs, kernel x inputs]."""
    return {shape.name: to_matrix(layer_of(scene.model, shape.name)) for shape in scene.layers}


def prunable_weights(scene: Scene) -> int:
    return sum(shape.numel for shape in scene.layers)


@torch.no_grad()
def zero_lowest(scene: Scene, scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Make the `count` weights of lowest score, which is 0 or above, zero: all layers ranked together, weights that are
    zero already first. Returns, by name, which of them were not zero before."""
    weights = matrices(scene)
    flat = torch.cat([scores[name].masked_fill(weight_OI == 0, -1).flatten() for name, weight_OI in weights.items()])
    parts = lowest(flat, count).split([each.numel() for each in weights.values()])
    deleted: dict[str, Tensor] = {}
    for (name, weight_OI), part in zip(weights.items(), parts, strict=True):
        gone_OI = part.view_as(weight_OI)
        deleted[name] = gone_OI & (weight_OI != 0)
        set_matrix(layer_of(scene.model, name), weight_OI.masked_fill(gone_OI, 0))
    return deleted
