"""Result of a sensitivity job: the loss against the pruning rate of each layer, with all other layers dense."""

from typing import Literal

from pydantic import BaseModel

from core.engine.architectures.model_task import MODEL_TASKS, ModelTask


class SensitivityPoint(BaseModel):
    """Figures of the model with one layer pruned at one rate.

    `sparsity` is the share of the layer's weights that became zero. `loss` is the mean cross-entropy in nats per token
    or image. `ratio` is the perplexity divided by the dense model's; None for classifiers.
    """

    rate: float
    sparsity: float
    loss: float
    perplexity: float | None = None
    ratio: float | None = None
    accuracy: float | None = None


class SensitivityCurve(BaseModel):
    """Curve of one layer, or one linear layer: its name, its place in the model, and its number of prunable weights."""

    name: str
    layer: int
    weights: int
    points: list[SensitivityPoint]


class Sensitivity(BaseModel):
    """Curves of a model. `dense` is the whole model at rate 0. `measured_on` names the text or images and how many."""

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
        """Return True if each curve is of a whole layer: all linear layers of a block, or one layer of a classifier."""
        return self.scope == "layer" or not self.model_task.has_blocks

    def increases(self, curve: SensitivityCurve) -> list[float]:
        """Return the increase of the loss over the dense model's at each point of a curve, in nats."""
        return [point.loss - self.dense.loss for point in curve.points]
