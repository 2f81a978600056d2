"""Context of a method for classifiers: the model, its images, and the callbacks for progress."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.counting import counted
from core.engine.architectures.structure import LinearShape
from core.engine.datasets.image_set import ImageSet
from core.engine.evaluation.forward_memory import MEASURED_AT_ONCE
from core.engine.options.patterns import UNSTRUCTURED, Pattern
from core.engine.resume.store import ResumeStore
from core.progress import Progress
from secateur_wire.errors import InvalidRequest


@dataclass
class Network:
    """Loaded classifier with everything a method needs to prune it.

    `model` is float32, in evaluation mode, on `device`, and changed in place: `model(pixel_values=images_BCHW).logits`
    are [batch, classes]. `layers` are the prunable layers, in order, with their modules' names. `images` are for
    calibration, and `training` for the training between cuts (None: `images`). `notes` and `figures` go into the
    report. `store` is where an iterative method saves its rounds, and finds those of an earlier attempt.
    """

    model: nn.Module
    layers: Sequence[LinearShape]
    sparsity: float = 0.0
    pattern: Pattern = UNSTRUCTURED
    images: ImageSet | None = None
    training: ImageSet | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = field(default_factory=Progress)
    store: ResumeStore | None = None
    batch_size: int = MEASURED_AT_ONCE
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def calibration(self) -> ImageSet:
        """Images for calibration; raises InvalidRequest where there are none."""
        if self.images is None:
            raise InvalidRequest(
                "calibration is required: this method measures on labelled images", param="calibration"
            )
        return self.images

    def module(self, name: str) -> nn.Module:
        return self.model.get_submodule(name)

    def logits(self, images_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images_BCHW).logits
        return logits

    def batches(self, images: ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images [batch, channels, height, width] and labels [batch] of a set, in order, on the device."""
        for numbers in counted(torch.arange(len(images)).split(self.batch_size), "batches of images"):
            yield images.batch(numbers).to(self.device), images.labels_N[numbers].to(self.device)


@torch.no_grad()
def loss_and_accuracy(network: Network, images: ImageSet) -> tuple[float, float]:
    """Return the mean cross-entropy in nats and the share of images whose top class is the label."""
    loss = right = 0.0
    for pixels_BCHW, labels_B in network.batches(images):
        logits_BK = network.logits(pixels_BCHW)
        loss += float(nn.functional.cross_entropy(logits_BK, labels_B, reduction="sum"))
        right += float((logits_BK.argmax(dim=-1) == labels_B).sum())
    return loss / len(images), right / len(images)


def mean_loss(network: Network, images: ImageSet) -> float:
    """Return mean cross-entropy over a set, in nats."""
    return loss_and_accuracy(network, images)[0]


def weights_of(model: nn.Module, layers: Sequence[LinearShape]) -> Mapping[str, nn.Parameter]:
    """Return the weights of layers by parameter name, for `ZeroPattern`."""
    return {f"{layer.name}.weight": weight_of(model, layer.name) for layer in layers}


def weight_of(model: nn.Module, name: str) -> nn.Parameter:
    """Return the weight parameter of a convolution or linear layer's module."""
    weight = model.get_submodule(name).weight
    assert isinstance(weight, nn.Parameter)
    return weight
