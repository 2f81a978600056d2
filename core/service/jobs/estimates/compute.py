"""Formula for the computation of a job: tokens that pass through the model, and floating-point operations."""

from dataclasses import dataclass
from math import ceil

from core.device_kinds import CPU, DeviceKind
from core.engine.architectures.describe import is_narrowed
from core.engine.architectures.description import ModelDescription
from core.engine.options.base import MethodParameters
from core.engine.options.sensitivity import SensitivityOptions
from core.engine.quantization.settings import reads_inputs
from core.methods.cost import GRADIENT_PASSES, WAITING_FOR_MEMORY, CostFacts, Tokens, column_operations
from core.methods.registry import get_method, parse_parameters
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.validation import calibrated_variant
from core.service.jobs.estimates.mixtures import active_parameters
from core.service.jobs.estimates.training import training_work

_LATENCY_PASSES = 8
"""Cost of latency and verification, in forwards over one sequence: warm-up, rounds, two models, decoding."""
_SEARCH_STEPS = 10
"""Most shapes, about, that are timed to find one fast enough."""
_WAITING_IN_BATCHES = 5
"""Slowdown of a product with a matrix of few rows, many sequences' next tokens."""


@dataclass(frozen=True)
class Compute:
    """Computation of a job: `passes` (tokens through the whole model, by forward) and floating-point `operations`."""

    passes: int
    operations: int


def compute_cost(description: ModelDescription, job: Recipe, tokens: Tokens, device: DeviceKind = CPU) -> Compute:
    """Return the tokens that pass through the model, and the operations.

    They add up: forwards of the calibration tokens, as many as the method's cost says (a refit goes through the dense
    model too, and after structured pruning through what is left), of a few tokens for gradients that allocate; forwards
    of the evaluation tokens, the tasks' questions and the prompts with their generated tokens, through dense and pruned
    model; and the solver's operations.
    """
    cost = get_method(job.method).variant(job.pattern).cost
    if (sensitivity := job.parameters.sensitivity_options) is not None:
        return _measuring_work(description, job, sensitivity, tokens)
    facts = facts_of(description, job, tokens)
    compensation = facts.parameters.requested_compensation
    calibration = cost.passes(facts)
    if compensation is not None and compensation.refits:
        calibration += (2 if compensation.is_after_removal else 1) * tokens.calibration
    calibration += GRADIENT_PASSES * allocating_tokens(job, tokens)
    measured = tokens.evaluation + tokens.tasks
    models = 2 if job.recovery is None else 3
    models += is_narrowed(description, job.output.dtype)  # the dense one too, in the new dtype
    models += job.is_rounded_at_last
    rounding = _rounding(description, job, tokens)
    timed = 1 + _SEARCH_STEPS * seeks_latency(job)
    passes = calibration + 2 * tokens.tasks + models * tokens.evaluation + timed * _LATENCY_PASSES * tokens.window
    passes += rounding.passes
    passes += tokens.calibration * bool(job.output.importance_matrix)
    passes += 2 * (tokens.prompts + tokens.written) + _answering_passes(tokens)
    head = 2 * description.hidden_size * description.vocabulary_size * models * measured
    waiting = (WAITING_FOR_MEMORY - 1) * 2 * tokens.written
    pruning = 2 * (passes + waiting) * active_parameters(description) + head + _solver(description, job, tokens)
    trainings = [training_work(description, each, device=device) for each in (cost.training(facts), job.recovery)]
    return Compute(
        passes + tokens.own_text + sum(each.tokens for each in trainings),
        pruning
        + rounding.operations
        + _writing(description, tokens)
        + _answering(description, tokens)
        + sum(each.operations for each in trainings),
    )


def _rounding(description: ModelDescription, job: Recipe, tokens: Tokens) -> Compute:
    """Return the computation of rounding by XᵀX: that matrix and its factor if pruning has none, and the columns."""
    chosen = job.output.quantization
    if chosen is None or not reads_inputs(chosen):
        return Compute(0, 0)
    is_own = job.is_rounded_at_last or not get_method(job.method).prunes
    variant = calibrated_variant(job.method, job.pattern, job.parameters)
    grams = _grams(description, tokens) if is_own or variant.reads != "gram" else 0
    return Compute(tokens.calibration * is_own, grams + column_operations(description))


def _grams(description: ModelDescription, tokens: Tokens) -> int:
    """Return the operations of XᵀX of every input of the blocks, and of its factor with the inverse (4/3 I³)."""
    inputs = {(linear.layer, linear.in_features) for linear in description.linears}
    return sum(width**2 * tokens.calibration + 4 * width**3 // 3 for _, width in inputs)


def _measuring_work(description: ModelDescription, job: Recipe, options: SensitivityOptions, tokens: Tokens) -> Compute:
    """Return the computation of a sensitivity job.

    Calibration and evaluation tokens pass through the dense model; for every point the evaluation tokens pass from the
    pruned layer on, half the model on average, and through the head.
    """
    rates = len(options.rates or ())
    points = rates * (len(description.linears) if options.scope == "module" else description.layers)
    half = (description.layers + 1) / (2 * description.layers)
    passes = tokens.calibration + ceil(tokens.evaluation * (1 + points * half))
    head = 2 * description.hidden_size * description.vocabulary_size * (1 + points) * tokens.evaluation
    solver = rates * _solver(description, job, tokens)
    operations = 2 * passes * active_parameters(description) + head + solver + _writing(description, tokens)
    return Compute(passes + tokens.own_text, operations)


def _writing(description: ModelDescription, tokens: Tokens) -> int:
    """Return the operations of the text the model generates itself, with an equivalent of its waits for memory."""
    one = 2 * active_parameters(description) + 2 * description.hidden_size * description.vocabulary_size
    return _WAITING_IN_BATCHES * one * tokens.own_text


def _answering_passes(tokens: Tokens) -> int:
    """Return the tokens of questions and answers that pass through both models.

    Each model reads the questions twice, writes two answers to each, and reads questions and answers once more.
    """
    return 2 * (3 * tokens.questions + 3 * tokens.answered)


def _answering(description: ModelDescription, tokens: Tokens) -> int:
    """Return the operations that answers take beside their passes: the head, and waits for memory."""
    head = 2 * description.hidden_size * description.vocabulary_size
    waits = (_WAITING_IN_BATCHES - 1) * (2 * active_parameters(description) + head)
    return 2 * tokens.answered * (3 * head + 2 * waits)


def allocating_tokens(job: Recipe, tokens: Tokens) -> int:
    """Return the calibration tokens whose gradients give every layer its rate."""
    options = job.parameters.allocation_options
    if options is None or options.allocation != "fisher":
        return 0
    return min(options.fisher_sequences * tokens.window, tokens.calibration)


def seeks_latency(job: Recipe) -> bool:
    return job.target is not None and job.target.is_time


def facts_of(description: ModelDescription, job: Recipe, tokens: Tokens) -> CostFacts[MethodParameters]:
    """Return the facts that the cost of the method that prunes goes by; measured, it has its default parameters."""
    parameters = job.parameters
    if (measured := parameters.sensitivity_options) is not None:
        parameters = parse_parameters(measured.method, {}, measured.pattern)
    sparsity = job.sparsity or _expected_removal(description, job)
    return CostFacts(description, parameters, sparsity, tokens, job.output.layout)


def _expected_removal(description: ModelDescription, job: Recipe) -> float:
    """Return about how much goes where costs decide: as much as the cost falls; 0 for all other jobs."""
    if job.target is None or not job.is_chosen_by_cost:
        return 0
    return 1 - (job.target.limit if job.target.is_time else min(1.0, job.target.limit / description.bytes))


def _solver(description: ModelDescription, job: Recipe, tokens: Tokens) -> int:
    """Return the operations of the solver and of compensation.

    A method that reads XᵀX computes it for every input and factorises it; the method's cost has the rest. Compensation
    computes the same XᵀX, the product of dense and pruned inputs and a second factorisation, and multiplies by XᵀX in
    every step.
    """
    variant = calibrated_variant(job.method, job.pattern, job.parameters)
    compensation = job.parameters.requested_compensation
    if variant.reads != "gram" and compensation is None:
        return 0
    inputs = {(linear.layer, linear.in_features) for linear in description.linears}
    grams = _grams(description, tokens)
    experts = description.known_as.experts
    if experts is not None:  # each has an XᵀX, of the tokens that it is given, and a factorisation of its own
        grams += sum(
            each.in_features**2 * tokens.calibration * experts.top_k + each.experts * 4 * each.in_features**3 // 3
            for each in description.linears
            if each.experts is not None
        )
    if compensation is not None:
        products = compensation.conjugate_gradient_steps
        if compensation.refits:
            grams += sum(2 * width**2 * tokens.calibration + 4 * width**3 // 3 for _, width in inputs)
            products += 3
        grams += sum(2 * products * linear.numel * linear.in_features for linear in description.linears)
    return grams + variant.cost.operations(facts_of(description, job, tokens))
