"""Count of a job's computation: tokens or images that pass through the model, and floating-point operations."""

from dataclasses import dataclass
from math import ceil

from core.device_kinds import WAITING_FOR_MEMORY, DeviceKind
from core.engine.architectures.description import USUAL_SIDE, ClassifierDescription, ModelDescription, is_narrowed
from core.engine.options.axes import MethodParameters, SensitivityOptions
from core.engine.recovery.request import RECOVERIES, Recovery
from core.methods.registry import get_method, parse_parameters
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.validation import calibrated_variant

_LATENCY_PASSES = 8
"""Cost of latency and verification, in forwards over one sequence: warm-up, rounds, two models, decoding."""
_SEARCH_STEPS = 10
"""Most shapes, about, that are timed to find one fast enough."""
_GRADIENT_PASSES = 4
"""Cost of gradients that are computed block by block, in forwards: two forwards, and the backward."""
_WAITING_IN_BATCHES = 5
"""Slowdown of a product with many sequences' next tokens, as `WAITING_FOR_MEMORY` is that with one token."""
_VERIFIED_IMAGES = 100


@dataclass(frozen=True)
class Tokens:
    """Numbers of tokens that pass through the model.

    They are for: the calibration set, all evaluation sets together, one window, all questions of zero-shot tasks, and
    prompts. After the prompts, `written` tokens are generated one at a time. `own_text` is the text that the model
    still has to generate itself, many sequences at the same time. `questions` are questions' tokens, which both models
    answer twice. `answered` is the largest number of tokens of one answer to each question; many answers are generated
    together.
    """

    calibration: int
    evaluation: int
    window: int
    tasks: int = 0
    prompts: int = 0
    written: int = 0
    own_text: int = 0
    questions: int = 0
    answered: int = 0


@dataclass(frozen=True)
class ImageCounts:
    """Images of the calibration set, and of all evaluation sets together."""

    calibration: int
    evaluation: int


@dataclass(frozen=True)
class Compute:
    """Computation of a job: `passes` (tokens or images through the model, by forward) and `operations`."""

    passes: int
    operations: int


def compute_cost(description: ModelDescription, job: Recipe, tokens: Tokens, device: DeviceKind) -> Compute:
    """Return the tokens that pass through a language model, and the operations.

    Calibration tokens pass as often as the method's parameters say; evaluation tokens, questions and prompts pass
    through the dense and the pruned model; training passes forward twice and backward. Solvers multiply by XᵀX.
    """
    if (sensitivity := job.parameters.sensitivity_options) is not None:
        return _measuring(description, job, sensitivity, tokens)
    models = (2 if job.recovery is None else 3) + is_narrowed(description, job.output.dtype) + job.is_rounded_at_last
    answering = 6 * (tokens.questions + tokens.answered)
    passes = (
        _calibration_passes(description, job, tokens)
        + models * tokens.evaluation
        + 2 * (tokens.tasks + tokens.prompts + tokens.written)
        + (1 + _SEARCH_STEPS * seeks_latency(job)) * _LATENCY_PASSES * tokens.window
        + answering
        + tokens.own_text
    )
    waiting = (WAITING_FOR_MEMORY - 1) * 2 * tokens.written
    waiting += (_WAITING_IN_BATCHES - 1) * (tokens.own_text + 4 * tokens.answered)
    head = models * tokens.evaluation + 2 * tokens.tasks + tokens.own_text + answering
    operations = 2 * (passes + waiting) * active_parameters(description) + _solver(description, job, tokens)
    operations += 2 * head * description.hidden_size * description.vocabulary_size
    for recovery in filter(None, (chosen_by_training(job, tokens), job.recovery)):
        trained = _training(description, recovery, device)
        passes, operations = passes + trained.passes, operations + trained.operations
    return Compute(passes, operations)


def chosen_by_training(job: Recipe, tokens: Tokens) -> Recovery | None:
    """Return the training by which a method chooses what goes; None where it does not train."""
    training = job.parameters.training(max(2, tokens.window))
    assert training is None or isinstance(training, Recovery)
    return training


def seeks_latency(job: Recipe) -> bool:
    return job.target is not None and job.target.is_time


def active_parameters(description: ModelDescription) -> int:
    """Return the prunable parameters that one token is multiplied with: only the experts it is routed to count."""
    experts = description.known_as.experts
    if experts is None:
        return description.prunable_parameters
    stacks = [(each.numel, each.experts) for each in description.linears if each.experts is not None]
    return description.prunable_parameters - sum(
        numel // number * (number - min(experts.top_k, number)) for numel, number in stacks
    )


def classifier_cost(description: ClassifierDescription, job: Recipe, counts: ImageCounts) -> Compute:
    """Return the images that pass through an image classifier, and the operations.

    Evaluation images pass through the dense and the pruned model, calibration images as often as the method passes
    over them; a training image counts three times.
    """
    options = job.parameters
    if (measured := options.sensitivity_options) is not None:  # each point is pruned and evaluated for itself
        points = len(measured.rates or ()) * len(description.linears)
        reads = get_method(measured.method).variant(measured.pattern).needs.calibration
        images = counts.evaluation * (1 + points) + counts.calibration * points * reads
    else:
        needs, retraining = get_method(job.method).variant(job.pattern).needs, options.retraining
        recovered = 0 if job.recovery is None else job.recovery.steps * job.recovery.batch_size
        calibrated = counts.calibration * (3 if needs.gradients else 1) * retraining.rounds
        evaluated = counts.evaluation * (2 if job.recovery is None else 3) + 2 * _VERIFIED_IMAGES
        images = calibrated + 3 * (recovered + retraining.images) + evaluated
    if description.passes is not None:
        return Compute(images, description.passes.operations * images)
    side = description.image.height or USUAL_SIDE
    positions = side * (description.image.width or side)
    products = sum(each.numel * (positions if each.kernel > 1 else 1) for each in description.linears)
    return Compute(images, 2 * images * products)


def _calibration_passes(description: ModelDescription, job: Recipe, tokens: Tokens) -> int:
    """Return the calibration tokens that pass by forward for the choice, for a refit, and for rounding."""
    parameters, options = job.parameters, job.parameters.allocation_options
    needs = get_method(job.method).variant(job.pattern).needs
    share = _removed_share(description, job)
    passes = parameters.forwards(description, share, tokens.calibration, tokens.window) * needs.calibration
    if needs.gradients and not needs.training:
        passes *= _GRADIENT_PASSES
    refit = parameters.requested_compensation
    if refit is not None and refit.refits:
        passes += (2 if refit.is_after_removal else 1) * tokens.calibration
    if options is not None and options.allocation == "fisher":
        passes += _GRADIENT_PASSES * min(options.fisher_sequences * tokens.window, tokens.calibration)
    return passes + (_has_rounding_pass(job) + bool(job.output.importance_matrix)) * tokens.calibration


def _has_rounding_pass(job: Recipe) -> bool:
    """Return True if weights are rounded by XᵀX in a pass of their own."""
    return job.rounds_by_inputs and (job.is_rounded_at_last or not get_method(job.method).prunes)


def _removed_share(description: ModelDescription, job: Recipe) -> float:
    """Return about the share that goes; where costs decide, as much as the cost falls."""
    if job.sparsity or job.target is None or not job.is_chosen_by_cost:
        return job.sparsity or 0
    return 1 - (job.target.limit if job.target.is_time else min(1.0, job.target.limit / description.bytes))


def _solver(description: ModelDescription, job: Recipe, tokens: Tokens) -> int:
    """Return the operations of XᵀX and its factor for every input of the blocks, and of products with it."""
    variant, refit = calibrated_variant(job.method, job.pattern, job.parameters), job.parameters.requested_compensation
    if variant.reads != "gram" and refit is None and not job.rounds_by_inputs:
        return 0
    products = job.rounds_by_inputs + (0 if refit is None else refit.conjugate_gradient_steps + 3)
    share, parameters = _removed_share(description, job), _pruning_parameters(job)
    experts = description.known_as.experts
    total = 0.0
    read: set[tuple[int, int]] = set()
    for each in description.linears:
        inputs, seen = each.in_features, tokens.calibration
        if each.experts is not None and experts is not None:  # an XᵀX of each expert, of the tokens it is given
            total += inputs**2 * seen * experts.top_k + each.experts * 4 * inputs**3 / 3
        elif (each.layer, inputs) not in read:
            total += inputs**2 * seen + 4 * inputs**3 / 3
            read.add((each.layer, inputs))
        solved = parameters.products(inputs, share) if variant.reads == "gram" else 0
        total += (2 * products + solved) * each.numel * inputs
    return ceil(total)


def _pruning_parameters(job: Recipe) -> MethodParameters:
    """Return the parameters of the method that prunes; one that is measured has its defaults."""
    measured = job.parameters.sensitivity_options
    return job.parameters if measured is None else parse_parameters(measured.method, {}, measured.pattern)


def _measuring(description: ModelDescription, job: Recipe, options: SensitivityOptions, tokens: Tokens) -> Compute:
    """Return the computation of a sensitivity job.

    Calibration and evaluation tokens pass through the dense model; for every point the evaluation tokens pass from the
    pruned layer on, half the model on average, and through the head.
    """
    rates = len(options.rates or ())
    points = rates * (len(description.linears) if options.scope == "module" else description.layers)
    half = (description.layers + 1) / (2 * description.layers)
    passes = tokens.calibration + ceil(tokens.evaluation * (1 + points * half)) + tokens.own_text
    waiting = (_WAITING_IN_BATCHES - 1) * tokens.own_text
    head = 2 * description.hidden_size * description.vocabulary_size * (1 + points) * tokens.evaluation
    solver = rates * _solver(description, job, tokens)
    return Compute(passes, 2 * (passes + waiting) * active_parameters(description) + head + solver)


def _training(description: ModelDescription, recovery: Recovery, device: DeviceKind) -> Compute:
    """Return the tokens and operations of training.

    They are of a forward, a second one (as if activations were not kept), a backward of twice as many, and a teacher's
    forward; but no more than the device does in the minutes that were given.
    """
    tokens = recovery.steps * recovery.batch_size * (recovery.sequence_length or 0)
    head = description.hidden_size * description.vocabulary_size
    passes = 4 + RECOVERIES[recovery.method].learns_from_model
    operations = 2 * tokens * passes * (active_parameters(description) + head)
    if recovery.minutes is not None:
        most = 60 * recovery.minutes * device.operations_per_second
        tokens, operations = int(tokens * min(1, most / operations)), int(min(operations, most))
    return Compute(tokens, operations)
