"""Search for the least sparsity at which a structured method's model is as fast as requested, by timing shapes.

Layers of the same shape are equally fast for any weights. So shapes are timed with random weights, before anything is
chosen or removed. Where costs of parts decide the shape of each layer, they are looked up or measured instead.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

from core.device_kinds import CPU
from core.engine.architectures.description import ModelDescription, require_structure, stored_as
from core.engine.architectures.structure import cached_values_of_group
from core.engine.architectures.unit_counts import CostLimit, removable_parameters
from core.engine.architectures.units import KindName, removed_kinds
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.evaluation.latency import DenseLatency
from core.engine.latency.costs import Latency, PartCosts
from core.engine.latency.machine import machine_name
from core.engine.latency.measure import measured_costs
from core.engine.latency.model_widths import dense_shape, model_widths
from core.engine.latency.registry import engine_info
from core.engine.latency.variants import ModelShape
from core.engine.models.folder import ModelFolder
from core.engine.models.loading import own_implementations
from core.engine.models.tensors import DTYPES
from core.engine.pruning.plan import model_facts
from core.engine.removals.runs import LANGUAGE_RUNS
from core.engine.removals.widths import offered_units
from core.engine.resume.kinds import LATENCY
from core.engine.resume.store import ResumeStore, Runtime, Saved, fingerprint
from core.pipeline.plans import cut_for_device, make_plan
from core.pipeline.reports.report import LatencySearch, TimedShape
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.search_spec import SearchOutput, SearchSpec
from secateur_wire.errors import Conflict, InvalidTarget, LatencyTooNoisy, TargetUnreachable
from secateur_wire.job_body import Target


class Timing(NamedTuple):
    """Ratio of pruned to dense milliseconds, and the relative spread of the dense model's own timings."""

    ratio: float
    dense_spread: float


def least_sparsity(
    sparsities: Sequence[float],
    target_ratio: float,
    time_at: Callable[[float], Timing],
    on_step: Callable[[TimedShape, float], None],
    param: str = "target.latency_ratio",
) -> LatencySearch:
    """Find the least of `sparsities` that takes at most `target_ratio` of the dense time, by bisection.

    `sparsities` ascend from 0; a larger one is assumed never to be slower. The search stops early if a ratio is below
    `target_ratio` by no more than the spread of the dense timings. `on_step` gets each timed shape, and the share of
    the search that is done at least. `param` is the field of the target.

    Raises LatencyTooNoisy if the spread is larger than the requested gain, and TargetUnreachable if the largest
    sparsity is too slow.
    """
    steps: list[TimedShape] = []
    most = 1 + max(len(sparsities) - 2, 0).bit_length()

    def time(place: int) -> Timing:
        timing = time_at(sparsities[place])
        steps.append(TimedShape(sparsity=sparsities[place], ratio=timing.ratio))
        on_step(steps[-1], len(steps) / most)
        return timing

    slow, fast = 0, len(sparsities) - 1
    ratio, spread = time(fast)
    if spread > 1 - target_ratio:
        raise LatencyTooNoisy(
            f"{param} {target_ratio:g}: timings of the dense model alone differ by {spread:.1%}, more than the gain "
            f"of {1 - target_ratio:.1%} asked for: use a worker without other work, longer sequences, or a smaller "
            "gain",
            param=param,
        )
    if ratio > target_ratio:
        raise TargetUnreachable(
            f"{param} {target_ratio:g} cannot be reached: the nearest measured ratio is {ratio:.3f}, at sparsity "
            f"{sparsities[fast]:.4f}, the largest possible",
            param=param,
        )
    while fast - slow > 1 and ratio < target_ratio / (1 + spread):
        middle = (slow + fast) // 2
        tried = time(middle).ratio
        if tried <= target_ratio:
            fast, ratio = middle, tried
        else:
            slow = middle
    return LatencySearch(sparsity=sparsities[fast], spread=spread, steps=steps)


def search_target(spec: SearchSpec, context: StageContext) -> SearchOutput:
    """Search for the job's target, and report each shape when it is timed.

    Raises LatencyTooNoisy, TargetUnreachable, OutOfMemory.
    """
    progress = context.progress
    progress.stage("open")
    if spec.recipe.is_chosen_by_cost:
        return _find_costs(spec, context)
    timed = 0

    def on_step(step: TimedShape, done: float) -> None:
        nonlocal timed
        progress.advance(done)
        progress.metric("latency_ratio", timed, step.ratio)
        progress.log(f"sparsity {step.sparsity:.4f}: {step.ratio:.3f} of the dense model's time")
        timed += 1

    result = search_model(spec, context.device, on_step)
    progress.metric("target_sparsity", timed, result.sparsity)
    progress.log(f"the target means sparsity {result.sparsity:.4f}{'' if timed else ', as an earlier attempt result'}")
    return SearchOutput(search=result, peak_memory=context.peak_memory())


def search_model(spec: SearchSpec, device: torch.device, on_step: Callable[[TimedShape, float], None]) -> LatencySearch:
    """Return the sparsity for a job's `target.latency_ratio` or `target.decode_ratio`.

    A result that an earlier attempt saved under the same circumstances is returned without a search. Raises the errors
    of `least_sparsity`, and OutOfMemory if the dense and the pruned model do not both fit.
    """
    folder, recipe = open_place(spec.source), spec.recipe
    removal, sequence_length = recipe.removal, recipe.timed_length
    target = recipe.target
    assert target is not None and target.is_time and removal is not None
    dtype = DTYPES[stored_as(folder.description, recipe.output.dtype).dtype]
    description = folder.description
    facts = {
        "method": recipe.method,
        "parameters": recipe.parameters.model_dump(mode="json"),
        target.kind: target.limit,
        "sequence_length": sequence_length,
        **model_facts(folder, spec.source.revision, {}),
    }
    same = fingerprint("search", facts, Runtime.of(device, dtype))
    store = ResumeStore(spec.work, same, spec.previous)
    saved = store.load(LATENCY)
    if isinstance(saved, Saved):
        result = LatencySearch.model_validate(saved.state)
    else:
        run = LANGUAGE_RUNS[removal.id]
        dense = open_place(spec.model)
        clock = DenseLatency(dense, sequence_length=sequence_length, device=device, other_bytes=description.bytes)

        def time_at(sparsity: float) -> Timing:
            request = replace(recipe.request, sparsity=sparsity, at_least=False)  # one of those there are
            config = folder.config_of(run.pruned_config(folder, make_plan(folder, request, device=device)))
            latency = clock.against(random_model(folder, config, dtype, device))
            if target.latency_ratio is not None:
                return Timing(latency["pruned_ms"] / latency["dense_ms"], latency["dense_spread"])
            return Timing(latency["decode_pruned_ms"] / latency["decode_dense_ms"], latency["decode_dense_spread"])

        sparsities = removal.reachable(cut_for_device(device, recipe.request, description))
        result = least_sparsity(sparsities, target.limit, time_at, on_step, f"target.{target.kind}")
    store.save(LATENCY, 0, {}, result.model_dump(mode="json"))
    return result


def _find_costs(spec: SearchSpec, context: StageContext) -> SearchOutput:
    """Return the limit of cost of a job, with its table of costs of parts where times are limited.

    A table that is not for this machine, workload or version is measured again, which a note says.
    """
    recipe, progress = spec.recipe, context.progress
    target, removal = recipe.target, recipe.removal
    assert target is not None and removal is not None
    source, dense = (open_place(place).description for place in (spec.source, spec.model))
    stored, dense = (stored_as(each, recipe.output.dtype).language_model for each in (source, dense))
    offered = offered_units(cut_for_device(context.device, recipe.request, stored))
    if not target.is_time:
        costs = memory_limit(target, offered, stored, recipe.timed_length)
        return SearchOutput(costs=costs, peak_memory=context.peak_memory())
    assert spec.workload is not None
    info = engine_info(spec.workload.engine)
    if info.form is None and context.device.type != CPU.name:
        raise InvalidTarget(
            f"target.{target.kind}: costs of parts are measured on processors, and this worker runs models on "
            f"{context.device.type}: use output.layout 'uniform', or a target.engine that runs files",
            param=f"target.{target.kind}",
        )
    threads = spec.workload.threads or len(os.sched_getaffinity(0))
    workload = spec.workload.model_copy(update={"threads": threads})
    table, notes = spec.table, []
    if table is not None:
        try:
            table.require_usable(workload, model_widths(dense), machine=machine_name(), version=info.version)
        except Conflict as conflict:
            notes.append(f"Costs of parts were measured again: {conflict.message}.")
            table = None
    if table is None:
        table = measured_costs(open_place(spec.model), workload, place=spec.work, log=progress.log)
    costs = time_limit(target, table, offered, dense, stored)
    progress.log(f"the dense model takes {costs.dense:.2f} ms, by {costs.basis}")
    return SearchOutput(costs=costs, table=table, notes=notes, peak_memory=context.peak_memory())


def random_model(
    folder: ModelFolder, config: PretrainedConfig, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Build a model of the folder's family in the config's shape, with random weights."""
    model_class = getattr(transformers, folder.family.architecture)
    with torch.device(device):
        model = model_class._from_config(
            config, dtype=dtype, **own_implementations(model_class, folder.family.config_path)
        )
    shaped: PreTrainedModel = model.eval()
    return shaped


Offered = Mapping[KindName, Sequence[int]]
"""Numbers of units that a layer may keep, by kind."""
_KINDS = {kind.name: kind for kind in removed_kinds("kv_groups")}


def time_limit(
    target: Target, table: PartCosts, offered: Offered, dense: ModelDescription, source: ModelDescription
) -> CostLimit:
    """Return the limit of a ratio of times by a table of costs.

    `dense` is the model that the ratio refers to; `source` is the one that is pruned, which may have fewer tokens.
    Raises InvalidTarget where its layers differ in a part that stays.
    """
    block = model_widths(source).block
    if "heads" not in offered and len({each.kv_groups for each in dense_shape(source)}) > 1:
        raise InvalidTarget(
            f"target.{target.kind}: layers of this model have different numbers of heads, which stay: use "
            "parameters.attention 'kv_groups'",
            param=f"target.{target.kind}",
        )

    def milliseconds(cost: Latency) -> float:
        return cost.prefill_ms if target.latency_ratio is not None else cost.decode_ms

    def of_kind(kind: KindName) -> Callable[[int], Latency]:
        return table.ffn if _KINDS[kind].is_fine else table.attention

    dense_ms = milliseconds(table.predict(ModelShape(dense_shape(dense), dense.vocabulary_size)))
    workload = table.workload
    return CostLimit(
        target=target.kind,
        is_ratio=True,
        basis=f"the costs of parts in {workload.engine} ({workload.type})",
        limit=target.limit * dense_ms,
        dense=dense_ms,
        fixed=milliseconds(table.vocabulary(source.vocabulary_size)) + milliseconds(table.rest),
        layer=sum(
            milliseconds(of_kind(kind)(size))
            for kind, size in (("heads", block.kv_groups), ("channels", block.ffn_width))
            if kind not in offered
        ),
        units={
            kind: {number: milliseconds(of_kind(kind)(number)) for number in numbers}
            for kind, numbers in offered.items()
        },
    )


def memory_limit(target: Target, offered: Offered, source: ModelDescription, tokens: int) -> CostLimit:
    """Return the limit of the bytes of weights, and of the cache of so many tokens, of a model that is pruned.

    Raises InvalidTarget where its layers differ, and UnsupportedArchitecture where the cache is not known.
    """
    structure, weight = require_structure(source), WEIGHT_BYTES[source.dtype]
    if not structure.is_alike:
        raise InvalidTarget(
            f"target.{target.kind}: the layers of this model have different shapes already: use target.bytes",
            param=f"target.{target.kind}",
        )
    shape = structure.layers[0]
    cached = {"heads": cached_values_of_group(structure) * tokens}
    units = {
        kind: {
            number: weight * number * (_KINDS[kind].parameters(structure, 0) + cached.get(kind, 0))
            for number in numbers
        }
        for kind, numbers in offered.items()
    }
    going = removable_parameters(structure, 0, [_KINDS[kind] for kind in offered])
    staying = {"heads": shape.sizes["kv_heads"]} if "heads" not in offered else {}
    layer = weight * (shape.parameters - going + sum(cached[kind] * number for kind, number in staying.items()))
    fixed = float(source.bytes - weight * structure.parameters)
    most = {kind: max(each.values()) for kind, each in units.items()}
    return CostLimit(
        target=target.kind,
        is_ratio=False,
        basis=f"the bytes of weights and of a cache of {tokens:,} tokens",
        limit=target.limit,
        dense=fixed + len(structure.layers) * (layer + sum(most.values())),
        fixed=fixed,
        layer=layer,
        units=units,
    )
