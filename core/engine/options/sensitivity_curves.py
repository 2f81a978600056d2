"""Result of a sensitivity job: the loss against the pruning rate of each layer, all others dense."""

from typing import Literal

from pydantic import BaseModel

from core.engine.architectures.model_task import MODEL_TASKS, ModelTask


class SensitivityPoint(BaseModel):
    """Figures of the model with one layer pruned at one rate.

    `sparsity` is the share of its weights that became zero, `loss` the mean cross-entropy in nats, a token or image;
    `ratio` is perplexity over the dense model's, None of classifiers.
    """

    rate: float
    sparsity: float
    loss: float
    perplexity: float | None = None
    ratio: float | None = None
    accuracy: float | None = None


class SensitivityCurve(BaseModel):
    """One layer, or one linear layer: its name, its place in the model, and how many weights were to be pruned."""

    name: str
    layer: int
    weights: int
    points: list[SensitivityPoint]


class Sensitivity(BaseModel):
    """`dense` is the whole model at rate 0. `measured_on` names the text or images and how much of it."""

    task: Literal["language-model", "image-classification"]
    method: str
    pattern: str
    scope: Literal["layer", "module"]
    rates: list[float]
    measured_on: dict[str, str | int]
    dense: SensitivityPoint
    curves: list[SensitivityCurve]

    @property
    def model_task(self) -> ModelTask:
        return MODEL_TASKS[self.task]

    @property
    def is_by_layer(self) -> bool:
        """Return whether a curve is of a whole layer: of all linear layers of a block, or a classifier's one."""
        return self.scope == "layer" or not self.model_task.has_blocks

    def increases(self, curve: SensitivityCurve) -> list[float]:
        """Return the increase of the loss over the dense model's at each point of a curve, in nats."""
        return [point.loss - self.dense.loss for point in curve.points]
