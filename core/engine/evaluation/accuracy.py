"""Top-1 accuracy of a classifier, and its loss."""

import copy
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.counting import counted
from core.engine.datasets.image_set import ImageSet
from core.engine.evaluation.forward_memory import MEASURED_AT_ONCE
from core.engine.models.micro_batches import AtOnce
from secateur_wire.errors import NotFiniteWeights


@dataclass(frozen=True)
class Accuracy:
    """Result of a measurement of accuracy.

    `top1` is the share of the `samples` images whose largest logit is the label's; `loss` is the mean cross-entropy in
    nats.
    """

    top1: float
    loss: float
    samples: int

    @property
    def standard_error(self) -> float:
        """Standard error of `top1`, as a mean of independent draws: √(p(1−p)/n)."""
        return math.sqrt(self.top1 * (1 - self.top1) / self.samples)


@dataclass(frozen=True)
class ClassAgreement:
    """Agreement of a classifier with another: mean KL divergence in nats, and share of images of the same class."""

    kl: float
    top1: float


@torch.inference_mode()
def measure_rounding(model: nn.Module, pixels_NCHW: Tensor, dtype: torch.dtype) -> ClassAgreement | None:
    """Return how a classifier with weights rounded to a dtype agrees with itself, computed in the dtype of its weights.

    The model is in evaluation mode and stays as it is. Return None where a rounded weight is beyond the dtype's range.
    """
    rounded = copy.deepcopy(model)
    for each in itertools.chain(rounded.parameters(), rounded.buffers()):
        if each.is_floating_point():
            each.copy_(each.to(dtype))
    device = next(model.parameters()).device
    dense_NK, rounded_NK = (
        torch.cat([each(pixel_values=some.to(device)).logits.float() for some in pixels_NCHW.split(MEASURED_AT_ONCE)])
        for each in (model, rounded)
    )
    if not torch.isfinite(rounded_NK).all():
        return None
    divergence = nn.functional.kl_div(
        rounded_NK.log_softmax(-1), dense_NK.log_softmax(-1), reduction="batchmean", log_target=True
    )
    return ClassAgreement(float(divergence), float((dense_NK.argmax(-1) == rounded_NK.argmax(-1)).float().mean()))


@torch.inference_mode()
def measure_accuracy(model: nn.Module, images: ImageSet, batch_size: int = MEASURED_AT_ONCE) -> Accuracy:
    """Measure accuracy and loss over all images, in batches; the model is left in evaluation mode.

    Raises NotFiniteWeights where logits are not finite.
    """
    model.eval()
    return AtOnce(batch_size).run(lambda at_once: _measure_accuracy(model, images, at_once))


def _measure_accuracy(model: nn.Module, images: ImageSet, batch_size: int) -> Accuracy:
    device = next(model.parameters()).device
    right, total = 0, 0.0
    for numbers_B in counted(torch.arange(len(images)).split(batch_size), "measuring accuracy by batches"):
        logits_BK = model(pixel_values=images.batch(numbers_B).to(device)).logits.float()
        if not torch.isfinite(logits_BK).all():
            raise NotFiniteWeights("the model's logits are not finite numbers", param="model")
        labels_B = images.labels_N[numbers_B].to(device)
        right += int((logits_BK.argmax(dim=-1) == labels_B).sum())
        total += float(nn.functional.cross_entropy(logits_BK, labels_B, reduction="sum").double())
    return Accuracy(right / len(images), total / len(images), len(images))
