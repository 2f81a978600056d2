"""Formula for the memory, disk and time of a job on an image classifier, from the model's headers and the job body.

The whole model is in memory, with gradients and moments where it is trained. No header gives the size of the feature
maps. Once the model was traced, its passes are known, and `traced_bytes` is an account of them. Until then a
convolution is taken to have as many positions as its width leaves of the image, since networks halve the sides where
they double the channels. Measurements of the fleet's own jobs correct both (`core.service.jobs.estimates.history`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.engine.architectures.classifier_architecture import USUAL_SIDE, ClassifierDescription
from core.engine.architectures.classifier_passes import ClassifierPasses
from core.engine.evaluation.classifier_memory import checking_bytes, timing_bytes
from core.engine.evaluation.forward_memory import SMALL_TENSORS
from core.engine.exporters.registry import EXPORTERS
from core.engine.options.base import MethodParameters
from core.engine.options.sensitivity import SensitivityOptions
from core.engine.pruning.classifier_memory import ClassifierMemory
from core.engine.recovery.registry import RECOVERIES
from core.engine.removals.weights.options import prunable_linears, selection_of
from core.methods.classifier_cost import ClassifierFacts
from core.methods.method_info import Variant
from core.methods.registry import get_method, parse_parameters
from core.pipeline.recipes.recipe import Recipe

_BATCH = 128
_TRAINED_COPIES = 4
"""Copies of a trained parameter: itself, its gradient and two moments."""
_SHARED_BYTES = 48
"""Bytes of a weight while it is made to share its value: its bucket and sign, and sums of both, twice."""
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


def traced_bytes(
    description: ClassifierDescription, passes: ClassifierPasses, job: Recipe, *, calibration: int, evaluation: int
) -> int:
    """Return the most bytes that the process with the model holds.

    `calibration` and `evaluation` are the numbers of images of the two sets.
    """
    method = get_method(job.method)
    options = job.parameters
    if (measured := options.sensitivity_options) is not None:
        peak = _measured_bytes(description, passes, measured, calibration, evaluation)
        return math.ceil(SMALL_TENSORS * (passes.weights + peak))
    memory = _memory(description, passes, options)
    peak = memory.measuring(evaluation)
    if method.prunes:
        variant = method.variant(job.pattern)
        facts = _facts(memory, variant, options, job.sparsity or 0, calibration)
        peak = max(peak, variant.classifier_cost.peak_bytes(facts))
    if EXPORTERS[job.output.format].changes_weights:
        peak = max(peak, _SHARED_BYTES * memory.largest)
    teacher = 0
    if job.recovery is not None:  # whose zeros are known beside for the report
        peak = max(peak, memory.prunable + memory.training(job.recovery.batch_size))
        teacher = passes.weights * RECOVERIES[job.recovery.method].learns_from_model
    stages = passes.weights + teacher + peak
    return math.ceil(SMALL_TENSORS * max(stages, checking_bytes(passes), timing_bytes(passes, passes.weights)))


def _measured_bytes(
    description: ClassifierDescription,
    passes: ClassifierPasses,
    options: SensitivityOptions,
    calibration: int,
    evaluation: int,
) -> int:
    """Return the bytes of one layer after the other that is pruned alone, beside its weights as they were."""
    inner = parse_parameters(options.method, options.parameters, options.pattern)
    variant = get_method(options.method).variant(options.pattern)
    memory, rate = _memory(description, passes, inner), max(options.rates or [0.0])
    if variant.removal is not None and not variant.removal.zeroes:
        scoring = variant.classifier_cost.alone_bytes(_facts(memory, variant, inner, rate, calibration))
        return max(memory.silenced(evaluation), scoring)
    alone = (
        4 * layer.numel
        + variant.classifier_cost.alone_bytes(
            _facts(replace(memory, layers=[layer]), variant, inner, rate, calibration)
        )
        for layer in memory.layers
    )
    return max(4 * memory.largest + memory.loss(evaluation), *alone)


def _memory(
    description: ClassifierDescription, passes: ClassifierPasses, parameters: MethodParameters
) -> ClassifierMemory:
    return ClassifierMemory(description, passes, prunable_linears(description, selection_of(parameters)))


def _facts(
    memory: ClassifierMemory, variant: Variant, parameters: MethodParameters, sparsity: float, images: int
) -> ClassifierFacts[MethodParameters]:
    def solver(inputs: int, sizes: Sequence[int]) -> int:
        return variant.cost.matrix_bytes(parameters, sparsity, inputs, sizes)

    return ClassifierFacts(memory, parameters, sparsity, images, variant.reads, solver)
