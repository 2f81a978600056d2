"""Formula for the memory, disk and time of a job on an image classifier, from the model's headers and the job body.

The whole model is in memory, with gradients and moments where it is trained. No header gives the size of the feature
maps. Where the model was traced, it is known what its passes take (`core.service.jobs.estimates.classifier_account`).
Until then a convolution is taken to have as many positions as its width leaves of the image's, since networks halve the
sides where they double the channels. Measurements of the fleet's own jobs correct either
(`core.service.jobs.estimates.history`).
"""

import math
from dataclasses import dataclass

from core.engine.architectures.classifier_architecture import USUAL_SIDE, ClassifierDescription
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.estimates.classifier_account import traced_bytes

_BATCH = 128
_TRAINED_COPIES = 4
"""Copies of a trained parameter: itself, its gradient and two moments."""
_VERIFIED_IMAGES = 100


@dataclass(frozen=True)
class ImageCounts:
    """Images of the calibration set, and of all evaluation sets together."""

    calibration: int
    evaluation: int


@dataclass(frozen=True)
class ClassifierWork:
    """Images through the model, forwards counted; floating-point operations; bytes of the largest process.

    `is_traced`: the bytes are an account of tensors, in which nothing else is.
    """

    images: int
    operations: int
    memory_bytes: int
    is_traced: bool = False


def classifier_work(description: ClassifierDescription, job: Recipe, counts: ImageCounts) -> ClassifierWork:
    """Return the images that pass through the model, and the operations and memory they take.

    These are forwards of the evaluation images through dense and pruned model, of the calibration images as often as
    the method passes over them, and three times as many for training images.
    """
    needs = get_method(job.method).variant(job.pattern).needs
    options = job.parameters
    retraining = options.retraining
    recovered = 0 if job.recovery is None else job.recovery.steps * job.recovery.batch_size
    calibrated = counts.calibration * (3 if needs.gradients else 1) * retraining.rounds
    evaluated = counts.evaluation * (2 if job.recovery is None else 3) + 2 * _VERIFIED_IMAGES
    images = calibrated + 3 * (recovered + retraining.images) + evaluated
    if (measured := options.sensitivity_options) is not None:  # each point is pruned and evaluated for itself
        points = len(measured.rates or ()) * len(description.linears)
        reads = get_method(measured.method).variant(measured.pattern).needs.calibration
        images = counts.evaluation * (1 + points) + counts.calibration * points * reads
    if (passes := description.passes) is not None:
        memory = traced_bytes(description, passes, job, calibration=counts.calibration, evaluation=counts.evaluation)
        return ClassifierWork(images, passes.operations * images, memory, is_traced=True)
    positions = _positions(description)
    forward = 2 * sum(linear.numel * positions[linear.name] for linear in description.linears)
    maps = sum(linear.out_features * positions[linear.name] for linear in description.linears)
    is_trained = needs.gradients or needs.training or job.recovery is not None
    memory = 4 * description.parameters * (_TRAINED_COPIES + 2 if is_trained else 3)
    memory += 4 * _BATCH * maps * (2 if is_trained else 1)
    return ClassifierWork(images, forward * images, memory)


def _positions(description: ClassifierDescription) -> dict[str, int]:
    """Return about how many positions of a feature map each layer is applied at."""
    side = description.image.height or USUAL_SIDE
    area = side * (description.image.width or side)
    convolutions = [linear for linear in description.linears if linear.kernel > 1]
    narrowest = min((linear.out_features for linear in convolutions), default=0)
    positions = {}
    for linear in description.linears:
        if not convolutions or linear.out_features == description.classes:
            positions[linear.name] = 1
        else:
            positions[linear.name] = max(1, math.ceil(area * (narrowest / max(linear.out_features, narrowest)) ** 2))
    return positions
