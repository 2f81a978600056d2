"""What a job needs by formula: memory, device memory, disk and time, from the model's headers and the job body alone.

The formula follows the engine: the prune stage holds embeddings and head, one block with the copies it is pruned
through, the statistics of one input group, the tokens that wait in front of a linear layer, and activations up to a
budget; training, verification and latency load whole models in processes of their own. Its constants are rounded
measurements on a CPU; what a fleet's own jobs took corrects it (`core.jobs.estimates`).
"""

from collections import defaultdict
from dataclasses import dataclass
from math import ceil

from pydantic import BaseModel

from core.catalogue.adapted_parameters import Adapted
from core.catalogue.classifiers import ClassifierDescription
from core.catalogue.compatibility import parse_parameters
from core.catalogue.linear_shape import LinearShape
from core.catalogue.methods import get_method
from core.catalogue.model_folder import ModelDescription
from core.catalogue.parameters import (
    MOST_STEPS,
    ADMMParameters,
    BonsaiParameters,
    Compensated,
    Compensation,
    Refit,
    Refitted,
)
from core.catalogue.recovery import Recovery
from core.catalogue.safetensors_header import WEIGHT_BYTES
from core.catalogue.targets import bytes_in_turn
from core.catalogue.tasks import BYTES_PER_LOGIT, LOGITS_BYTES, LONGEST_TOKENS
from core.jobs.classifier_needs import ClassifierWork
from core.jobs.schemas import JobBody
from core.jobs.training_needs import training_bytes, training_work

_LIBRARIES_BYTES = 450 * 2**20
"""Resident in a process that has loaded the engine."""
_LIBRARIES_WITH_CUDA_BYTES = 2 * 2**30
_DEVICE_CONTEXT_BYTES = 600 * 2**20
_MICRO_BATCH_TOKENS = 4096
_LOGIT_POSITIONS = 256
_VERIFIED_POSITIONS = 64
_GRADIENT_PASSES = 4
"""Forwards that taking gradients block by block is worth: two, and the way back."""
_LATENCY_PASSES = 8
"""Forwards over one sequence by which latency and verification come down to: warm-up, rounds, two models, decoding."""
_SEARCH_STEPS = 10
"""Shapes that are timed to find one fast enough, at most about this many."""

_OPERATIONS_PER_SECOND = {"cpu": 2e11, "cuda": 5e13}
_BYTES_PER_SECOND = 5e8
_SOLVERS = ("admm", "frontier", "sparsegpt", "obs")
"""Methods that factorise XᵀX of every input."""
_WAITING_FOR_MEMORY = 10
"""How much longer a multiplication by a vector takes than its share of one by a matrix, about: each number is read for
one product only."""
_PROCESS_SECONDS = 6.0
"""Of each of the processes a job starts: interpreter, libraries, the model's tokenizer and config."""
_CLASSIFIER_PROCESSES = 4


@dataclass(frozen=True)
class Tokens:
    """Tokens that pass through the model: the calibration set, all evaluation sets together, a window's length, all
    questions of zero-shot tasks, and prompts, after which so many are `written`, one at a time."""

    calibration: int
    evaluation: int
    window: int
    tasks: int = 0
    prompts: int = 0
    written: int = 0


class Needs(BaseModel):
    """Bytes are peaks: of the largest process in main memory and on the device; on the worker's disk those of the job's
    folder, of a model fetched for it, and of the artifact's copy in a local store.
    """

    peak_memory_bytes: int
    peak_device_memory_bytes: int | None
    disk_bytes: int
    seconds: float


@dataclass(frozen=True)
class Work:
    """`passes`: tokens through the whole model, forwards counted; `operations`: floating-point operations in all."""

    passes: int
    operations: int


def work_of(description: ModelDescription, job: JobBody, tokens: Tokens) -> Work:
    """Forwards of the calibration tokens (twice where the method walks twice, what is worth four for gradients, and as
    often as Bonsai measures masks; a refit goes through the dense model too, and after a cut through what is left), of
    a few for gradients that allocate, of the evaluation tokens, the tasks' questions and the prompts with what is
    written after them through dense and pruned, and the solver's operations.
    """
    walks = 2 if job.parameters.get("propagation") == "two_pass" or job.parameters.get("allocation") == "owl" else 1
    compensation = _compensation(job)
    adapted = _adapted(job)
    if get_method(job.method).measures:
        return _measuring_work(description, job, tokens)
    if adapted is not None:
        walks = 0
    elif get_method(job.method).needs.gradients and job.method != "recover":
        walks = _GRADIENT_PASSES
    calibration = walks * tokens.calibration
    if job.method == "bonsai":
        calibration = _masked_tokens(description, job, tokens)
    if compensation is not None and compensation.refits:
        calibration += (2 if _is_after_a_cut(compensation) else 1) * tokens.calibration
    if job.parameters.get("allocation") == "fisher":
        calibration += _GRADIENT_PASSES * min(job.parameters["fisher_sequences"] * tokens.window, tokens.calibration)
    measured = tokens.evaluation + tokens.tasks
    models = 2 if job.recovery is None else 3
    timed = 1 + _SEARCH_STEPS * _seeks_latency(job)
    passes = calibration + 2 * tokens.tasks + models * tokens.evaluation + timed * _LATENCY_PASSES * tokens.window
    passes += 2 * (tokens.prompts + tokens.written)
    passes += 0 if adapted is None else adapted.probed(description.layers)
    head = 2 * description.hidden_size * description.vocabulary_size * models * measured
    waiting = (_WAITING_FOR_MEMORY - 1) * 2 * tokens.written
    pruning = 2 * (passes + waiting) * description.prunable_parameters + head + _solver(description, job, tokens)
    choosing = None if adapted is None else _training_to_choose(adapted, tokens)
    trainings = [training_work(description, each) for each in (choosing, job.recovery)]
    return Work(passes + sum(each.tokens for each in trainings), pruning + sum(each.operations for each in trainings))


def _measuring_work(description: ModelDescription, job: JobBody, tokens: Tokens) -> Work:
    """Of a sensitivity job: calibration and evaluation tokens through the dense model, and for every point the
    evaluation tokens from the pruned layer on, half the model on average, and through the head.
    """
    points = len(job.parameters["rates"]) * (
        len(description.linears) if job.parameters["scope"] == "module" else description.layers
    )
    half = (description.layers + 1) / (2 * description.layers)
    passes = tokens.calibration + ceil(tokens.evaluation * (1 + points * half))
    head = 2 * description.hidden_size * description.vocabulary_size * (1 + points) * tokens.evaluation
    solver = len(job.parameters["rates"]) * _solver(description, job, tokens)
    return Work(passes, 2 * passes * description.prunable_parameters + head + solver)


def _compensation(job: JobBody) -> Refit | None:
    parameters = parse_parameters(job.method, job.parameters)
    return parameters.compensation if isinstance(parameters, Compensated | Refitted) else None


def _is_after_a_cut(compensation: Refit) -> bool:
    return not isinstance(compensation, Compensation)


def _adapted(job: JobBody) -> Adapted | None:
    """The parameters of a method that chooses by training, None of any other."""
    parameters = parse_parameters(job.method, job.parameters)
    return parameters if isinstance(parameters, Adapted) else None


def _training_to_choose(adapted: Adapted, tokens: Tokens) -> Recovery:
    return adapted.training(max(2, tokens.window))


def _seeks_latency(job: JobBody) -> bool:
    return job.target is not None and job.target.latency_ratio is not None


def _masked_tokens(description: ModelDescription, job: JobBody, tokens: Tokens) -> int:
    """Tokens Bonsai runs forward: in every round those of its sequences, once for the prior and once for each mask."""
    parameters = parse_parameters(job.method, job.parameters)
    assert isinstance(parameters, BonsaiParameters)
    share = (job.sparsity or 0) * description.parameters / description.prunable_parameters
    measured = min(parameters.sequences * tokens.window, tokens.calibration)
    return ceil(share / parameters.round_share) * (1 + parameters.masks_per_round) * measured


def _solves(job: JobBody) -> str:
    """The method whose pruning is done: the job's, or the one a sensitivity job measures."""
    return str(job.parameters["method"]) if get_method(job.method).measures else job.method


def _solver(description: ModelDescription, job: JobBody, tokens: Tokens) -> int:
    """SparseGPT and OBS: XᵀX of every input, its factorisation (4/3 I³ with the inverse), and the sweep over the
    columns, or, in each row, a growing matrix times a vector for each weight that goes; ADMM: a product with a matrix
    like XᵀX in every turn. Compensation: the same XᵀX, one between the dense inputs and the pruned ones, a second
    factorisation, and a multiplication by XᵀX in every step.
    """
    compensation = _compensation(job)
    if _solves(job) not in _SOLVERS and compensation is None:
        return 0
    inputs = {(linear.layer, linear.in_features) for linear in description.linears}
    grams = sum(width**2 * tokens.calibration + 4 * width**3 // 3 for _, width in inputs)
    if compensation is not None:
        steps = compensation.conjugate_gradient if isinstance(compensation, Compensation) else 0
        products = 2 * MOST_STEPS if steps == "auto" else steps
        if compensation.refits:
            grams += sum(2 * width**2 * tokens.calibration + 4 * width**3 // 3 for _, width in inputs)
            products += 3
        grams += sum(2 * products * linear.out_features * linear.in_features**2 for linear in description.linears)
    if _solves(job) not in _SOLVERS:
        return grams
    if _solves(job) == "obs":
        deleted = (job.sparsity or 0) ** 2
        rows = sum(linear.out_features * deleted * linear.in_features**3 for linear in description.linears)
        return grams + ceil(_WAITING_FOR_MEMORY * rows)
    parameters = parse_parameters(_solves(job), {} if get_method(job.method).measures else job.parameters)
    turns = 2 * parameters.iterations if isinstance(parameters, ADMMParameters) else 1
    return grams + turns * sum(linear.out_features * linear.in_features**2 for linear in description.linears)


def needs_of(
    description: ModelDescription,
    job: JobBody,
    tokens: Tokens,
    *,
    device: str,
    activation_budget_bytes: int,
    is_fetched: bool,
) -> Needs:
    """What the job needs on a worker of that kind (`cpu` or `cuda`). `is_fetched`: the model comes over the network and
    lies on the worker's disk too.
    """
    width = WEIGHT_BYTES[description.dtype]
    compensation = _compensation(job)
    refit = compensation if compensation is not None and compensation.refits else None
    in_float32 = refit is not None and _is_after_a_cut(refit) and device == "cpu"
    forward = 4 if description.dtype == "float32" or in_float32 else 2
    lanes = 1 if refit is None else 2  # a refit has the dense block beside the other, with tokens of its own
    blocks = _largest_block(description)
    ends = max(description.parameters - description.prunable_parameters, 0) * width
    block = sum(linear.numel for linear in blocks)
    group = max(_groups(blocks), default=0)
    widest = max(linear.in_features for linear in blocks)
    broadest = max(linear.out_features for linear in blocks)
    # Stored tensors and the module they are copied into; the group being pruned in float32: weights, score, result.
    pruning = block * (width + lanes * forward) + group * 16
    statistics = 3 * 4 * widest**2 if _solves(job) in _SOLVERS else 0
    if refit is not None:  # XᵀX̂ beside X̂ᵀX̂, its factor and what that is made from; of tokens held aside both again
        statistics = (7 if refit.chooses else 5) * 4 * widest**2
    waiting = lanes * tokens.calibration * widest * forward
    batch = min(max(tokens.calibration, tokens.evaluation, tokens.window), _MICRO_BATCH_TOKENS)
    forward_pass = batch * (6 * description.hidden_size + 3 * broadest) * 4
    logits = 3 * 4 * min(_LOGIT_POSITIONS, tokens.evaluation) * description.vocabulary_size
    streams = description.hidden_size * (lanes * forward * tokens.calibration + width * 2 * tokens.evaluation)
    method = get_method(job.method)
    if method.measures:  # a stream for every point of a layer; what the budget has over holds later blocks
        at_once = len(job.parameters["rates"]) * (len(blocks) if job.parameters["scope"] == "module" else 1)
        streams += description.hidden_size * width * at_once * tokens.evaluation + description.bytes
    engine = ends + pruning + statistics + waiting + max(forward_pass, logits) + min(streams, activation_budget_bytes)
    adapted = _adapted(job)
    if adapted is not None:  # beside the whole model, what the walk holds throughout
        choosing = _training_to_choose(adapted, tokens)
        engine = max(engine, ends + training_bytes(description, choosing, device=device).memory)
    elif method.needs.gradients:  # of a block, in float32: weights, sums of gradients and of their squares, one of each
        engine += block * 16 + min(
            4 * description.layers * description.hidden_size * tokens.calibration, activation_budget_bytes
        )
    if job.method == "depth":  # all blocks at once
        engine += description.prunable_parameters * forward
    if job.method == "bonsai":  # the same, before the walk that removes, and no tokens but those under way
        engine = max(engine, ends + description.prunable_parameters * forward + max(forward_pass, logits))
    whole = description.bytes + 2 * 4 * _VERIFIED_POSITIONS * description.vocabulary_size
    if tokens.tasks:
        one = LONGEST_TOKENS * description.vocabulary_size * BYTES_PER_LOGIT
        whole = max(whole, description.bytes + max(LOGITS_BYTES[device], one))
    if _seeks_latency(job):
        whole = max(whole, bytes_in_turn(description.bytes, description.bytes))
    if method.measures:  # no model is made, verified or timed
        whole = 0
    training = training_bytes(description, job.recovery, device=device)
    whole = max(whole, training.memory)
    work = work_of(description, job, tokens)
    processes = 1 if method.measures else (5 if tokens.tasks else 3) + _seeks_latency(job) + bool(tokens.written)
    copies = is_fetched + 3 * (not method.measures)
    stored = description.bytes * copies + training.disk  # blocks, artifact, its copy in a local store
    stored += 0 if adapted is None else description.prunable_parameters * width  # as trained
    moved = stored + 6 * description.bytes + 4 * streams
    on_device = device == "cuda"
    return Needs(
        peak_memory_bytes=(
            _LIBRARIES_WITH_CUDA_BYTES + max(block * width + streams // 8, training.checkpoint)
            if on_device
            else _LIBRARIES_BYTES + max(engine, whole)
        ),
        peak_device_memory_bytes=_DEVICE_CONTEXT_BYTES + max(engine, whole) if on_device else None,
        disk_bytes=stored + 2 * streams,
        seconds=processes * _PROCESS_SECONDS
        + work.operations / _OPERATIONS_PER_SECOND[device]
        + moved / _BYTES_PER_SECOND,
    )


def classifier_needs(
    description: ClassifierDescription, work: ClassifierWork, *, device: str, is_fetched: bool
) -> Needs:
    """What a job on an image classifier needs on a worker of that kind."""
    on_device = device == "cuda"
    stored = description.bytes * (4 + is_fetched)  # rounds, artifact in two forms, its copy in a local store
    return Needs(
        peak_memory_bytes=_LIBRARIES_WITH_CUDA_BYTES if on_device else _LIBRARIES_BYTES + work.memory_bytes,
        peak_device_memory_bytes=_DEVICE_CONTEXT_BYTES + work.memory_bytes if on_device else None,
        disk_bytes=stored,
        seconds=_CLASSIFIER_PROCESSES * _PROCESS_SECONDS
        + work.operations / _OPERATIONS_PER_SECOND[device]
        + stored / _BYTES_PER_SECOND,
    )


def _largest_block(description: ModelDescription) -> list[LinearShape]:
    """Layers may differ in shape."""
    blocks: dict[int, list[LinearShape]] = defaultdict(list)
    for linear in description.linears:
        blocks[linear.layer].append(linear)
    return max(blocks.values(), key=lambda block: sum(linear.numel for linear in block))


def _groups(linears: list[LinearShape]) -> list[int]:
    """Weights of the linear layers of a block that are pruned together: those of one input width, at most three (two of
    an MLP, or query, key and value)."""
    by_width: dict[int, list[int]] = defaultdict(list)
    for linear in linears:
        by_width[linear.in_features].append(linear.numel)
    return [sum(sorted(sizes)[-2:]) for sizes in by_width.values()]
