"""Training of a classifier with its zeros kept, as recovery and between cuts, and the saved rounds of such methods."""

from collections.abc import Mapping

import torch
from torch import nn

from core.engine.datasets.image_set import ImageSet
from core.engine.models.accelerator import backend_of
from core.engine.models.classifier import COUNTERS
from core.engine.models.reshaping import reshape_modules
from core.engine.pruning.network import Network, weights_of
from core.engine.recovery.distill import image_loss
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import ZeroPattern
from core.engine.recovery.training import Training
from core.engine.resume.kinds import ROUND
from core.engine.resume.store import ResumeStore, Saved
from core.progress import PartialProgress, Progress

LEARNING_RATE = 1e-3
_MODEL = "model"


def retrain(
    model: nn.Module,
    images: ImageSet,
    recovery: Recovery,
    pruned: Mapping[str, nn.Parameter],
    *,
    teacher: nn.Module | None = None,
    store: ResumeStore | None = None,
    progress: Progress | None = None,
) -> list[float]:
    """Train every parameter on labelled images, in place; return the loss of each step.

    The model is left in evaluation mode. `pruned` are the weights, by name, whose zeros stay zero. `teacher` is the
    model for recoveries that learn from one. `recovery.learning_rate` defaults to LEARNING_RATE.

    Raises WorkStopped when the job is stopped and saved, RecoveryDiverged where the loss is not finite.
    """
    device = next(model.parameters()).device
    filled = recovery.model_copy(update={"learning_rate": recovery.learning_rate or LEARNING_RATE})
    training = Training(
        model,
        torch.arange(len(images))[:, None],  # image numbers take the place of token sequences
        filled,
        loss=image_loss(images, recovery, teacher),
        rule=ZeroPattern(pruned),
        accelerator=backend_of(device).training(),
        store=store,
        progress=progress or Progress(),
    )
    training.run()
    return training.losses


def retrain_between(
    network: Network, *, steps: int, learning_rate: float | None, batch_size: int, seed: int, metric: str, done: int
) -> list[float]:
    """Train the network's model between two cuts, keeping zeros; return the loss of each step.

    The losses are reported as `metric` from step `done` on. Raises WorkStopped when the job is stopped,
    RecoveryDiverged where the loss is not finite.
    """
    if not steps:
        return []
    recovery = Recovery(
        method="finetune", steps=steps, learning_rate=learning_rate, batch_size=batch_size, seed=seed % 2**31
    )
    pruned = weights_of(network.model, network.layers)
    progress = _Retraining(network.progress, metric, done)
    images = network.calibration if network.training is None else network.training
    return retrain(network.model, images, recovery, pruned, progress=progress)


class _Retraining(PartialProgress):
    """Progress of training between two cuts: its losses continue the earlier ones; it reports no progress itself."""

    def __init__(self, outer: Progress, metric: str, steps_before: int) -> None:
        super().__init__(outer)
        self._metric = metric
        self._steps_before = steps_before

    def begin_part(self, start: float, end: float, *, of_loops: bool = False) -> None:
        """Report nothing: the rounds report the progress."""

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        """Report nothing: the rounds report the progress."""

    def metric(self, name: str, step: int, value: float) -> None:
        self.outer.metric(self._metric, self._steps_before + step, value)


def save_round(network: Network, number: int) -> None:
    """Save the model, its figures and its notes after a round; without a store, do nothing."""
    if network.store is None:
        return
    tensors = {name: each for name, each in network.model.state_dict().items() if not name.endswith(COUNTERS)}
    groups = {name: each.groups for name, each in network.model.named_modules() if isinstance(each, nn.Conv2d)}
    state = {"groups": groups, "figures": network.figures, "notes": network.notes}
    network.store.save(ROUND, number, {_MODEL: tensors}, state)


def restore_round(network: Network) -> int | None:
    """Restore model, figures and notes of the newest saved round and return its number; None if there is none."""
    saved = None if network.store is None else network.store.load(ROUND)
    if not isinstance(saved, Saved):
        return None
    tensors = saved.read(_MODEL)
    reshape_modules(network.model, tensors, saved.state["groups"])
    network.model.load_state_dict(tensors, strict=False)
    network.figures.update(saved.state["figures"])
    network.notes[:] = saved.state["notes"]
    network.progress.log(f"continuing after round {saved.position}")
    return saved.position
