"""Account of the bytes that a job on a traced image classifier holds at the peak of its stages.

One process, which holds the whole model, does the stages of the job. The check and the timing of the saved model are
processes of their own.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from core.engine.architectures.classifier_architecture import ClassifierDescription
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

_SHARED_BYTES = 48
"""Bytes of a weight while it is made to share its value: its bucket and sign, and sums of both, twice."""


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
        return ceil(SMALL_TENSORS * (passes.weights + peak))
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
    return ceil(SMALL_TENSORS * max(stages, checking_bytes(passes), timing_bytes(passes, passes.weights)))


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
