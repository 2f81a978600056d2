"""Formula for a job's memory, device memory, disk and time, from the model's headers and the job body alone.

What a pass over a language model holds is the account of its trace, where there is one. Where there is none, the
formula is a coarse bound, and an account of its own where units go on a device with memory of its own. The prune stage
holds embeddings and head, one block with the copies it is pruned through, the statistics of one input group, the tokens
that wait in front of a linear layer, and activations up to a budget; training, zero-shot questions and latency load
whole models in processes of their own, and so does the reload check where there is room. Its constants are rounded
measurements on a CPU; measurements of the fleet's own jobs correct it (`core.service.jobs.estimates.history`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from pydantic import BaseModel

from core.device_kinds import CPU, DeviceKind
from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.describe import in_dtype, is_narrowed, stored_as
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.layer_shape import LinearShape
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.evaluation.forward_memory import SMALL_TENSORS, scoring_bytes, timing_bytes
from core.engine.evaluation.reload_memory import ReloadRoom, reload_needs
from core.engine.evaluation.zero_shot_tasks import TASKS, longest_tokens
from core.engine.exporters.exporter_info import AddedCost
from core.engine.exporters.registry import ADDED
from core.engine.exporters.sizes import MEASURED_TOKENS
from core.engine.quantization.settings import reads_inputs
from core.methods.cost import PassSizes, Tokens
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.validation import calibrated_variant
from core.service.jobs.estimates.classifier import ClassifierWork
from core.service.jobs.estimates.compute import (
    allocating_tokens,
    compute_cost,
    facts_of,
    seeks_latency,
)
from core.service.jobs.estimates.device_choices import LOGIT_POSITIONS, trained_choice_bytes
from core.service.jobs.estimates.mixtures import experts_account
from core.service.jobs.estimates.training import training_bytes
from secateur_wire.base import JsonObject, Number

_MICRO_BATCH_TOKENS = 4096

_BYTES_PER_SECOND = 5e8
_PROCESS_SECONDS = 6.0
"""Seconds that each process of a job takes to start: interpreter, libraries, the model's tokenizer and config."""
_CLASSIFIER_PROCESSES = 4
_USUAL_MATRICES, _MOST_MATRICES = 3, 8
"""Matrices as large as XᵀX, in float32, that most solvers hold, and that any solver holds at most."""
_LAYOUTS = 1.6
"""Main memory of a classifier's process, to its tensors: convolutions copy theirs into layouts of their own."""


class ResourceEstimate(BaseModel):
    """Resources that a job needs. Bytes are peaks.

    Main and device memory are for the largest process. The worker's disk holds the job's folder, a model that was
    fetched for it, and the artifact's copy in a local store.
    """

    peak_memory_bytes: int
    peak_device_memory_bytes: int | None
    disk_bytes: int
    seconds: float


FIGURES = tuple(ResourceEstimate.model_fields)


def compare(estimate: Mapping[str, Any] | None, measured: Mapping[str, Number | None]) -> JsonObject | None:
    """Return each figure estimated at submission, measured, and their ratio; None without an estimate."""
    if estimate is None:
        return None
    return {
        name: {"estimated": estimate[name], "actual": measured[name], "ratio": measured[name] / estimate[name]}
        for name in FIGURES
        if estimate.get(name) and measured.get(name) is not None
    } | {"jobs_it_came_from": estimate["basis"]["jobs"]}


def estimate_resources(
    description: ModelDescription,
    job: Recipe,
    tokens: Tokens,
    *,
    device: DeviceKind,
    activation_budget_bytes: int,
    is_fetched: bool,
    rooms: Sequence[ReloadRoom] = (),
    traced_bytes: int | None = None,
) -> ResourceEstimate:
    """Return the resources the job needs on a worker with a device of that kind.

    `traced_bytes` is the traced peak of the pass where the model is computed; None if there is no trace. `is_fetched`:
    the model comes over the network and is on the worker's disk too. `rooms` are the free bytes of workers beside their
    processes: if no worker has room for the whole model, the reload check leaves most of it on the disk.
    """
    width = WEIGHT_BYTES[description.dtype]
    compensation = job.parameters.requested_compensation
    refit = compensation if compensation is not None and compensation.refits else None
    forward = 4 if description.dtype == "float32" or not device.prefers_16_bit else 2
    lanes = 1 if refit is None else 2  # a refit has the dense block beside the other, with tokens of its own
    blocks = _largest_block(description)
    loaded = description.parameters - description.prunable_parameters - description.other_module_parameters
    narrowed = is_narrowed(description, job.output.dtype)
    ends = max(loaded, 0) * width * (5 if narrowed else 2) // 2  # the dense model's, and those that are cast
    block = sum(linear.numel for linear in blocks)
    group = max(_groups(blocks), default=0)
    widest = max(linear.in_features for linear in blocks)
    broadest = max(linear.out_features for linear in blocks)
    # Stored tensors and the module they are copied into; the group being pruned in float32: weights, score, result.
    pruning = block * (width + lanes * forward) + group * 16
    reads = calibrated_variant(job.method, job.pattern, job.parameters).reads
    if job.output.quantization is not None and reads_inputs(job.output.quantization):
        reads = "gram"
    is_traced = not description.has_experts  # a trace cannot follow tokens to experts: this is their only account
    statistics = (_MOST_MATRICES if is_traced else _USUAL_MATRICES) * 4 * widest**2 if reads == "gram" else 0
    if refit is not None:  # XᵀX̂ beside X̂ᵀX̂, its factor and what that is made from; of tokens held aside both again
        statistics = max(statistics, (7 if refit.chooses else 5) * 4 * widest**2)
    waiting = lanes * tokens.calibration * widest * forward
    measured, removal = job.parameters.sensitivity_options, job.removal
    if (
        is_traced and removal is not None and removal.zeroes
    ):  # beside the stream and what was added to it, if tokens wait at all
        options = job.parameters.propagation_options
        waiting += 2 * lanes * tokens.calibration * description.hidden_size * forward
        waiting *= options is None or options.propagation == "in_flight"
    batch = min(max(tokens.calibration, tokens.evaluation, tokens.window), _MICRO_BATCH_TOKENS)
    forward_pass = batch * (6 * description.hidden_size + 3 * broadest) * 4
    logits = 3 * 4 * min(LOGIT_POSITIONS, tokens.evaluation) * description.vocabulary_size
    streams = description.hidden_size * (
        lanes * forward * tokens.calibration + width * (2 + narrowed) * tokens.evaluation
    )
    method = get_method(job.method)
    cost, facts = method.variant(job.pattern).cost, facts_of(description, job, tokens)
    streams += description.hidden_size * forward * tokens.calibration * cost.calibration_aims(facts)
    if measured is not None:  # a stream for every point; what the budget has over holds later blocks
        at_once = len(measured.rates or ()) * (len(blocks) if measured.scope == "module" else 1)
        streams += description.hidden_size * width * at_once * tokens.evaluation + description.bytes
    engine = ends + pruning + statistics + waiting + max(forward_pass, logits) + min(streams, activation_budget_bytes)
    at_experts = experts_account(
        description,
        weight_bytes=width,
        forward_bytes=forward,
        tokens=tokens.calibration,
        lanes=lanes,
        states_bytes=min(streams, activation_budget_bytes),
        is_fitted=refit is not None
        and removal is not None
        and removal.narrows,  # whole experts say so by their own cost
    )
    if at_experts is not None:
        engine = max(engine, at_experts.total)
    choosing = cost.training(facts)
    # Beside the whole model, what the walk holds throughout.
    trained = 0 if choosing is None else ends + training_bytes(description, choosing, device=device).memory
    engine = max(engine, trained)
    sizes = PassSizes(block, forward, max(forward_pass, logits), activation_budget_bytes)
    memory = cost.memory(facts, sizes)
    engine = max(engine + memory.during, ends + memory.before)
    if allocating := allocating_tokens(job, tokens):  # before the walk, with none of its tokens: what blocks were given
        given = 4 * description.layers * description.hidden_size * allocating
        allocation_bytes = block * (width + 4) + min(given, activation_budget_bytes)
        engine = max(engine, ends + allocation_bytes + sizes.forward_bytes)
    artifact = stored_as(description, job.output.dtype)
    left = describe_left(description, job, device)
    if job.output.quantization is not None:  # the whole model is opened
        rooms = ()
    check = reload_needs(in_dtype(left, description.dtype) if narrowed else left, device, rooms)
    model_peak = check.device_memory if device.has_own_memory else check.memory
    examples = job.evaluation.num_fewshot
    longest = [longest_tokens(TASKS[task], examples) for task in job.evaluation.tasks if task in TASKS]
    questions = max((scoring_bytes(description, each, device.logits_bytes) for each in longest), default=0)
    writing = (
        description.bytes if tokens.own_text or tokens.answered else 0
    )  # prompts are left out where a model does not fit
    model_peak = max(model_peak, questions, writing)
    if traced_bytes is not None:
        chosen = trained_choice_bytes(facts, cost, device) if device.has_own_memory else trained
        trained_block = 0 if choosing is None else block * width  # beside the one that is read
        # The layer that goes in a trace may be the first, before which nothing is fitted to a stream of its own.
        aims = description.hidden_size * forward * tokens.calibration * cost.calibration_aims(facts)
        aims = min(aims, activation_budget_bytes) if removal is not None and removal.narrows else 0
        engine = max(ceil(SMALL_TENSORS * traced_bytes) + trained_block + aims, chosen)
    timed = timing_bytes(description, description.bytes if seeks_latency(job) else left.bytes, job.timed_length)
    if seeks_latency(job) or any(_holds(room, timed, device) for room in rooms):  # else it is left out
        model_peak = max(model_peak, timed)
    if method.measures:  # no model is made, verified or timed
        model_peak = writing
    training = training_bytes(
        artifact,
        job.recovery,
        device=device,
        activation_budget_bytes=activation_budget_bytes,
        holds_zeros=not job.shrinks,
        left=left,
    )
    model_peak = max(model_peak, training.memory)
    work = compute_cost(description, job, tokens, device)
    processes = 1 if method.measures else (5 if tokens.tasks else 3) + seeks_latency(job)
    processes += bool(tokens.written) + bool(tokens.own_text) + bool(tokens.answered)
    # Blocks, artifact, its copy in a local store; before that is made, experts that were stacked for the check.
    stored = description.bytes * is_fetched + artifact.bytes * 3 * (not method.measures) + training.disk
    stored += 0 if choosing is None else description.prunable_parameters * width  # as trained
    added = _added_cost(description, job)
    processes += added.processes
    if not device.has_own_memory:  # else forms are added in main memory
        model_peak = max(model_peak, added.memory_bytes)
    stored += 2 * added.bytes + added.temporary_bytes
    moved = stored + 6 * description.bytes + 4 * streams + check.traffic * (not method.measures)
    pruning = _host_bytes(blocks, width) + streams // 8
    host = max(pruning, training.checkpoint, added.memory_bytes, check.memory * (not method.measures))
    memory_bytes, device_memory_bytes = _peaks(device, max(engine, model_peak), host)
    return ResourceEstimate(
        peak_memory_bytes=memory_bytes,
        peak_device_memory_bytes=device_memory_bytes,
        disk_bytes=stored + 2 * streams,
        seconds=processes * _PROCESS_SECONDS
        + work.operations / device.operations_per_second
        + added.operations / CPU.operations_per_second
        + moved / _BYTES_PER_SECOND,
    )


def pass_needs(device: DeviceKind, traced_bytes: int) -> int:
    """Return the bytes that a process needs for a pass, from the bytes of its trace."""
    memory_bytes, device_memory_bytes = _peaks(device, ceil(SMALL_TENSORS * traced_bytes))
    return memory_bytes if device_memory_bytes is None else device_memory_bytes


def _added_cost(description: ModelDescription, job: Recipe) -> AddedCost:
    """Return the bytes of all added forms together; they are written one after another."""
    evaluation = job.evaluation
    length = evaluation.sequence_length or 0
    of_text = MEASURED_TOKENS if evaluation.samples is None else min(evaluation.samples * length, MEASURED_TOKENS)
    measured = len(evaluation.datasets) * of_text
    costs = [
        ADDED[each.format].added_cost(description, each.types, is_timed=job.times_exports, measured_tokens=measured)
        for each in job.output.exports
    ]
    return AddedCost(
        bytes=sum(each.bytes for each in costs),
        temporary_bytes=max((each.temporary_bytes for each in costs), default=0),
        memory_bytes=max((each.memory_bytes for each in costs), default=0),
        operations=sum(each.operations for each in costs),
        processes=sum(each.processes for each in costs),
    )


def classifier_needs(
    description: ClassifierDescription, work: ClassifierWork, *, device: DeviceKind, is_fetched: bool
) -> ResourceEstimate:
    """Return the resources that a job on an image classifier needs on a worker of that kind."""
    loaded = 2 * 4 * description.parameters  # as read, and in the module they are copied into
    computed = work.memory_bytes
    if work.is_traced and not device.has_own_memory:
        computed = ceil(_LAYOUTS * computed)
    memory_bytes, device_memory_bytes = _peaks(device, computed, loaded)
    stored = description.bytes * (4 + is_fetched)  # rounds, artifact in two forms, its copy in a local store
    return ResourceEstimate(
        peak_memory_bytes=memory_bytes,
        peak_device_memory_bytes=device_memory_bytes,
        disk_bytes=stored,
        seconds=_CLASSIFIER_PROCESSES * _PROCESS_SECONDS
        + work.operations / device.operations_per_second
        + stored / _BYTES_PER_SECOND,
    )


def _peaks(device: DeviceKind, work: int, host: int = 0) -> tuple[int, int | None]:
    """Return the peak bytes in main memory, and on the device where that has memory of its own.

    `work` are the bytes where the model is computed, `host` those in main memory if that is elsewhere.
    """
    if device.context_bytes is None:
        return device.process_bytes + work, None
    return device.process_bytes + host, device.context_bytes + work


def _holds(room: ReloadRoom, nbytes: int, device: DeviceKind) -> bool:
    """Return True if a worker is known to have so many bytes free for the computation."""
    free = room.device_memory if device.has_own_memory else room.memory
    return free is not None and nbytes <= free


def _host_bytes(block: list[LinearShape], width: int) -> int:
    """Return the main memory of weights on their way to and from a device with memory of its own.

    There are the tensor that is read, and pinned the block that is read ahead and the one that is saved: torch pins
    powers of two.
    """
    sizes = [linear.numel * width for linear in block]
    return max(sizes) + 2 * sum(1 << (size - 1).bit_length() for size in sizes)


def _largest_block(description: ModelDescription) -> list[LinearShape]:
    """Return the linear layers of the largest block, since layers may differ in shape."""
    blocks: dict[int, list[LinearShape]] = defaultdict(list)
    for linear in description.linears:
        blocks[linear.layer].append(linear)
    return max(blocks.values(), key=lambda block: sum(linear.numel for linear in block))


def _groups(linears: list[LinearShape]) -> list[int]:
    """Return the weights of each group of a block's linear layers that are pruned together.

    A group has the layers of one input width, at most three: two of an MLP, or query, key and value. Each expert is a
    group by itself.
    """
    by_width: dict[int, list[int]] = defaultdict(list)
    for linear in linears:
        by_width[linear.in_features].append(linear.numel // (linear.experts or 1))
    return [sum(sorted(sizes)[-2:]) for sizes in by_width.values()]


def describe_left(description: ModelDescription, job: Recipe, device: DeviceKind) -> ModelDescription:
    """Return the description of the pruned model, in the output's dtype. Its layers keep the dense model's shapes.

    The number of removed parameters is the least that rounding of the request allows.
    """
    description, removal = stored_as(description, job.output.dtype), job.removal
    if removal is None or removal.zeroes or not job.sparsity:
        return description
    removed = removal.least_removed(job.request.cut(description, round_to=device.round_to))
    removed = min(max(0, removed), description.prunable_parameters)
    return description.model_copy(
        update={
            "parameters": description.parameters - removed,
            "prunable_parameters": description.prunable_parameters - removed,
            "bytes": description.bytes - removed * WEIGHT_BYTES[description.dtype],
        }
    )
