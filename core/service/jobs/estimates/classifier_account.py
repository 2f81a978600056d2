"""Account of the bytes that a job on an image classifier holds at the peak of its stages, where the model was traced.

The stages of the job are one process, in which the model is whole, and the check and the timing of what was saved are
processes of their own.
"""

from collections.abc import Sequence
from math import ceil

from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.classifier_passes import ClassifierPasses
from core.engine.architectures.layer_shape import LinearShape
from core.engine.evaluation.classifier_memory import checking_bytes, timing_bytes
from core.engine.evaluation.forward_memory import SMALL_TENSORS
from core.engine.exporters.registry import EXPORTERS
from core.engine.options.base import MethodParameters
from core.engine.options.layer_selection import prunable_linears, selection_of
from core.engine.options.sensitivity import SensitivityOptions
from core.engine.pruning.classifier_memory import ClassifierMemory
from core.engine.recovery.registry import RECOVERIES
from core.methods.classifier_cost import ClassifierFacts
from core.methods.method_info import Variant
from core.methods.registry import get_method, parse_parameters
from core.pipeline.recipes.recipe import Recipe

_SHARED_BYTES = 48
"""Bytes of a weight while it is made to share its value: its bucket and sign, and sums of both, twice."""


def traced_bytes(
    description: ClassifierDescription, passes: ClassifierPasses, job: Recipe, *, calibration: int, evaluation: int
) -> int:
    """Return the most bytes that are held where the model is computed, by so many images of either set."""
    method = get_method(job.method)
    options = job.parameters
    if isinstance(options, SensitivityOptions):
        held = _measured_bytes(description, passes, options, calibration, evaluation)
        return ceil(SMALL_TENSORS * (passes.weights + held))
    memory = _memory(description, passes, options)
    held = memory.measuring(evaluation)
    if method.prunes:
        held = max(held, _pruning_bytes(memory, method.variant(job.pattern), options, job.sparsity or 0, calibration))
    if EXPORTERS[job.output.format].changes_weights:
        held = max(held, _SHARED_BYTES * memory.largest)
    teacher = 0
    if job.recovery is not None:  # whose zeros are known beside for the report
        held = max(held, memory.prunable + memory.training(job.recovery.batch_size))
        teacher = passes.weights * RECOVERIES[job.recovery.method].learns_from_model
    stages = passes.weights + teacher + held
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
    memory = _memory(description, passes, inner)
    held = memory.silenced(evaluation) if variant.removes == "filters" else memory.measuring(evaluation)
    rate = max(options.rates or [0.0])
    if variant.removes == "filters":
        return max(held, _pruning_bytes(memory, variant, inner, rate, calibration))
    return max(
        held + 4 * memory.largest, *(_alone(memory, each, variant, inner, rate, calibration) for each in memory.layers)
    )


def _alone(
    memory: ClassifierMemory,
    layer: LinearShape,
    variant: Variant,
    parameters: MethodParameters,
    rate: float,
    calibration: int,
) -> int:
    alone = ClassifierMemory(memory.description, memory.passes, [layer])
    return 4 * layer.numel + _pruning_bytes(alone, variant, parameters, rate, calibration)


def _memory(
    description: ClassifierDescription, passes: ClassifierPasses, parameters: MethodParameters
) -> ClassifierMemory:
    return ClassifierMemory(description, passes, prunable_linears(description, selection_of(parameters)))


def _pruning_bytes(
    memory: ClassifierMemory, variant: Variant, parameters: MethodParameters, sparsity: float, images: int
) -> int:
    def solver(inputs: int, sizes: Sequence[int]) -> int:
        return variant.cost.matrix_bytes(parameters, sparsity, inputs, sizes)

    return variant.classifier_cost.peak_bytes(
        ClassifierFacts(memory, parameters, sparsity, images, variant.reads, solver)
    )
