"""Search for the sparsity of a latency, or for the costs of a model's parts, before anything is pruned."""

import hashlib
import json
from typing import Final, Literal, NamedTuple

from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import ModelDescription, stored_as
from core.engine.architectures.unit_counts import CostLimit
from core.engine.evaluation.forward_memory import timed_tokens
from core.engine.exporters.sizes import PROMPT_TOKENS
from core.engine.latency.costs import DECODED_TOKENS, PartCosts, Workload
from core.engine.latency.machine import machine_name
from core.engine.latency.model_widths import model_widths
from core.engine.latency.registry import engine_info
from core.pipeline.messages import JobSpec, LanguageSpec, Spec, TaskOutput
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.sizes import TRANSFORMERS, timed_type
from core.pipeline.reports.report import LatencySearch
from core.pipeline.stages.stage import JobStage, RunningJob

COSTS_FILE: Final = "costs.json"
"""Name of the table's file in the node's cache."""


class SearchSpec(LanguageSpec, Spec):
    """Spec of timing shapes for the job's target of time, or of costs of parts.

    Where these are measured, `workload` is what is timed, and `table` has the costs that are known.
    """

    task: Literal["search"] = "search"
    workload: Workload | None = None
    table: PartCosts | None = None


class SearchOutput(TaskOutput):
    """Result of the search: the sparsity of a ratio of times, or the costs that decide what goes.

    `table` has measured costs of parts, for the next job.
    """

    search: LatencySearch | None = None
    costs: CostLimit | None = None
    table: PartCosts | None = None


class SearchSparsity(JobStage):
    """Stage that searches for the sparsity of a latency, or for costs of parts, before anything is pruned."""

    def is_requested(self, spec: JobSpec) -> bool:
        return spec.recipe.is_searched

    def supervise(self, job: RunningJob) -> None:
        known = _known_costs(job)
        output = job.tasks.run(SearchSpec.of(job.spec, workload=known.workload, table=known.table), SearchOutput)
        job.report.keep_peak("search", output.peak_memory)
        job.report.note(*output.notes)
        if known.key is not None and output.table is not None and output.table != known.table:
            job.keep_if_possible(known.key, COSTS_FILE, output.table.model_dump_json())
        if output.search is None:
            job.spec = job.spec.model_copy(update={"costs": output.costs})
            return
        job.search = output.search
        recipe = job.spec.recipe.model_copy(update={"sparsity": output.search.sparsity})
        job.spec = job.spec.model_copy(update={"recipe": recipe})


class _KnownCosts(NamedTuple):
    """Workload whose costs a job needs, the key of its table on this node, and the table where it is known."""

    workload: Workload | None = None
    key: str | None = None
    table: PartCosts | None = None


def _known_costs(job: RunningJob) -> _KnownCosts:
    """Return what an earlier job on this node has measured of the costs that a job needs."""
    spec, recipe = job.spec, job.spec.recipe
    if recipe.target is None or not recipe.target.is_time or not recipe.is_chosen_by_cost:
        return _KnownCosts()
    place = spec.model.place
    stored = inspect_folder(place.path, own_artifact=place.own_artifact, discovered=place.discovered)
    dense = stored_as(stored, recipe.output.dtype).language_model
    workload = timed_workload(recipe, dense, spec.threads)
    key = costs_key(dense, workload)
    entry = job.cache.find(key)
    if entry is None:
        return _KnownCosts(workload, key)
    with entry:
        return _KnownCosts(workload, key, PartCosts.model_validate_json((entry.path / COSTS_FILE).read_text()))


def costs_key(dense: ModelDescription, workload: Workload) -> str:
    """Return the key of a table of costs on this node; all models of the same shape share it."""
    facts = [
        workload.model_dump(mode="json"),
        model_widths(dense).model_dump(mode="json"),
        dense.layers,
        engine_info(workload.engine).version,
        machine_name(),
    ]
    return f"costs-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}"


def timed_workload(recipe: Recipe, dense: ModelDescription, threads: int | None) -> Workload:
    """Return the work whose costs decide what goes: a prompt as long as the one that the artifact is timed with."""
    assert recipe.target is not None
    info = engine_info(recipe.target.engine or TRANSFORMERS)
    tokens = timed_tokens(dense, recipe.timed_length) if info.form is None else PROMPT_TOKENS
    tokens = max(1, min(tokens, dense.context_length - DECODED_TOKENS))
    return Workload(
        engine=info.id,
        type=timed_type(dense, recipe.target.engine, recipe.export_types),
        threads=threads,
        prompt_tokens=tokens,
    )
