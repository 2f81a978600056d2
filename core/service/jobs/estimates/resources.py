"""First estimate of a job's memory, device memory, disk and time, from the model's headers and the job body alone.

Memory is the upper bound of `core.engine.memory` for the largest of the job's processes: the pass over the blocks,
training, questions, the reload check, timing, and added forms. Time is one count of operations at one pace.
Measurements of the fleet's own jobs correct all of it (`core.service.jobs.estimates.history`).
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from pydantic import BaseModel

from core.device_kinds import CPU, DeviceKind
from core.engine.architectures.description import (
    ClassifierDescription,
    ModelDescription,
    in_dtype,
    is_narrowed,
    stored_as,
)
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.evaluation.forward_memory import (
    CHECKED_AT_ONCE,
    MEASURED_AT_ONCE,
    ReloadRoom,
    reload_needs,
    timing_bytes,
)
from core.engine.evaluation.zero_shot_tasks import TASKS, longest_tokens
from core.engine.exporters.exporter_info import AddedCost
from core.engine.exporters.registry import ADDED
from core.engine.exporters.sizes import MEASURED_TOKENS
from core.engine.memory import (
    Pass,
    classifier_bytes,
    largest_block,
    least_bytes,
    pass_bytes,
    scoring_bytes,
    trained_parameters,
    training_bytes,
)
from core.methods.method_info import Variant
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.validation import calibrated_variant
from core.service.jobs.estimates.compute import (
    ImageCounts,
    Tokens,
    chosen_by_training,
    classifier_cost,
    compute_cost,
    seeks_latency,
)
from secateur_wire.base import JsonObject, Number

_BYTES_PER_SECOND = 5e8
_PROCESS_SECONDS = 6.0
"""Seconds that each process of a job takes to start: interpreter, libraries, the model's tokenizer and config."""
_CLASSIFIER_PROCESSES = 4
_LAYOUTS = 1.6
"""Main memory of images in a classifier, relative to their tensors: convolutions copy theirs into other layouts."""
_SAVED_BYTES = 12
"""Bytes of a trained parameter in a checkpoint: itself and two moments."""
_PINNED_BLOCKS = 3
"""Blocks in main memory on their way to and from a device: one read ahead, one saved, in pinned powers of two."""


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
) -> ResourceEstimate:
    """Return the resources the job needs on a worker with a device of that kind.

    `is_fetched`: the model comes over the network and is on the worker's disk too. `rooms` are the free bytes of
    workers beside their processes: if no worker has room for the whole model, the reload check leaves most of it on
    the disk.
    """
    method, width = get_method(job.method), WEIGHT_BYTES[description.dtype]
    frozen = width if device.prefers_16_bit and description.dtype == "bfloat16" else 4
    trainings = [each for each in (chosen_by_training(job, tokens), job.recovery) if each is not None]
    # Weights and moments of the newest two checkpoints, which pass main memory.
    saved = max((_SAVED_BYTES * trained_parameters(description, each) for each in trainings), default=0)
    artifact, left = stored_as(description, job.output.dtype), _describe_left(description, job)
    narrowed = is_narrowed(description, job.output.dtype)
    if job.output.quantization is not None:  # the whole model is opened
        rooms = ()
    check = reload_needs(in_dtype(left, description.dtype) if narrowed else left, device, rooms)
    over_blocks = _pass_of(description, job, tokens, device, activation_budget_bytes)
    work = pass_bytes(description, over_blocks)
    work += description.outer_bytes * (3 if narrowed else 2) // 2  # the dense model's ends, and those that are cast
    longest = [
        longest_tokens(TASKS[task], job.evaluation.num_fewshot) for task in job.evaluation.tasks if task in TASKS
    ]
    peaks = [
        work,
        check.device_memory if device.has_own_memory else check.memory,
        max((scoring_bytes(description, each, device.logits_bytes) for each in longest), default=0),
        description.bytes if tokens.own_text or tokens.answered else 0,
        *(
            training_bytes(description, each, frozen_bytes=frozen, budget_bytes=activation_budget_bytes)
            for each in trainings
        ),
    ]
    timed = timing_bytes(description, description.bytes if seeks_latency(job) else left.bytes, job.timed_length)
    if seeks_latency(job) or any(_holds(room, timed, device) for room in rooms):  # else it is left out
        peaks.append(timed)
    added, processes = _added_cost(description, job), 1 if method.measures else (5 if tokens.tasks else 3)
    if not device.has_own_memory:  # else forms are added in main memory
        peaks.append(added.memory_bytes)
    processes += seeks_latency(job) + added.processes
    processes += bool(tokens.written) + bool(tokens.own_text) + bool(tokens.answered)
    # Blocks, artifact, its copy in a local store; before that is made, experts that were stacked for the check.
    stored = description.bytes * is_fetched + artifact.bytes * 3 * (not method.measures)
    stored += (2 * artifact.bytes + 2 * saved) * bool(trainings) + 2 * added.bytes + added.temporary_bytes
    streams = over_blocks.lanes * over_blocks.value_bytes * tokens.calibration
    streams = description.hidden_size * (streams + width * (2 + narrowed) * tokens.evaluation)
    moved = stored + 6 * description.bytes + 4 * streams + check.traffic * (not method.measures)
    blocks = _PINNED_BLOCKS * width * sum(each.numel for each in largest_block(description))
    host = max(blocks + streams // 8, saved, added.memory_bytes, check.memory * (not method.measures))
    memory_bytes, device_memory_bytes = _peaks(device, max(peaks), host)
    return ResourceEstimate(
        peak_memory_bytes=memory_bytes,
        peak_device_memory_bytes=device_memory_bytes,
        disk_bytes=stored + 2 * streams,
        seconds=processes * _PROCESS_SECONDS
        + compute_cost(description, job, tokens, device).operations / device.operations_per_second
        + added.operations / CPU.operations_per_second
        + moved / _BYTES_PER_SECOND,
    )


def least_memory(description: ModelDescription, job: Recipe) -> int:
    """Return the bytes of weights that are in memory at once, whatever else is made smaller."""
    return least_bytes(description, "model" if job.recovery is not None else _variant_of(job).holds)


def classifier_needs(
    description: ClassifierDescription, job: Recipe, counts: ImageCounts, *, device: DeviceKind, is_fetched: bool
) -> ResourceEstimate:
    """Return the resources that a job on an image classifier needs on a worker of that kind."""
    variant, propagation = _variant_of(job), job.parameters.propagation_options
    trains = variant.needs.gradients or variant.needs.training or job.recovery is not None
    seen = min(max(counts.calibration, counts.evaluation), MEASURED_AT_ONCE)
    trained = job.parameters.retraining.batch_size if job.recovery is None else job.recovery.batch_size
    waiting = counts.calibration if propagation is not None and propagation.propagation == "in_flight" else 0
    images = max(seen, trained, CHECKED_AT_ONCE) + waiting
    if not device.has_own_memory:
        images = ceil(_LAYOUTS * images)
    computed = classifier_bytes(description, images, trains=trains, reads_gram=variant.reads == "gram")
    memory_bytes, device_memory_bytes = _peaks(device, computed, 2 * 4 * description.parameters)
    stored = description.bytes * (4 + is_fetched)  # rounds, artifact in two forms, its copy in a local store
    return ResourceEstimate(
        peak_memory_bytes=memory_bytes,
        peak_device_memory_bytes=device_memory_bytes,
        disk_bytes=stored,
        seconds=_CLASSIFIER_PROCESSES * _PROCESS_SECONDS
        + classifier_cost(description, job, counts).operations / device.operations_per_second
        + stored / _BYTES_PER_SECOND,
    )


def _pass_of(description: ModelDescription, job: Recipe, tokens: Tokens, device: DeviceKind, budget: int) -> Pass:
    """Return the pass over the blocks as the recipe says."""
    variant, refit = _variant_of(job), job.parameters.requested_compensation
    allocation, propagation = job.parameters.allocation_options, job.parameters.propagation_options
    fits = refit is not None and refit.refits
    return Pass(
        holds=variant.holds,
        reads_gram=fits or variant.reads == "gram" or job.rounds_by_inputs,
        takes_gradients=variant.needs.gradients or (allocation is not None and allocation.allocation == "fisher"),
        lanes=2 if fits else 1,  # a refit has the dense block beside the other, with tokens of its own
        waits=propagation is not None and propagation.propagation == "in_flight",
        value_bytes=4 if description.dtype == "float32" or not device.prefers_16_bit else 2,
        calibration=tokens.calibration,
        evaluation=tokens.evaluation,
        window=tokens.window,
        budget_bytes=budget,
    )


def _variant_of(job: Recipe) -> Variant:
    return calibrated_variant(job.method, job.pattern, job.parameters)


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


def _describe_left(description: ModelDescription, job: Recipe) -> ModelDescription:
    """Return the description of the pruned model, in the output's dtype. Its layers keep the dense model's shapes."""
    description = stored_as(description, job.output.dtype)
    if not job.shrinks or not job.sparsity:
        return description
    removed = min(round(job.sparsity * description.parameters), description.prunable_parameters)
    return description.model_copy(
        update={
            "parameters": description.parameters - removed,
            "prunable_parameters": description.prunable_parameters - removed,
            "bytes": description.bytes - removed * WEIGHT_BYTES[description.dtype],
        }
    )
