"""Search for the sparsity of a latency, or for the costs of a model's parts, before anything is pruned."""

import hashlib
import json
from typing import Final, Literal

from core.engine.architectures.cost_limit import CostLimit
from core.engine.latency.costs import PartCosts
from core.engine.latency.machine import machine_name
from core.engine.latency.registry import engine_info
from core.pipeline.messages import JobSpec, LanguageSpec, Spec, TaskOutput
from core.pipeline.recipes.sizes import TRANSFORMERS
from core.pipeline.reports.report import LatencySearch
from core.pipeline.stages.stage import JobStage, RunningJob

SEARCHED: Final = 0.1
"""Progress of the job at which the search ends."""
_TABLE = "costs.json"
_TABLE_BYTES = 2**20


class SearchSpec(LanguageSpec, Spec):
    """Spec of timing shapes for the job's target of time, or of the costs of parts; `table` are those known here."""

    task: Literal["search"] = "search"
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

    rank = 20
    part = 0.0, SEARCHED

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and spec.recipe.is_searched

    def supervise(self, job: RunningJob) -> None:
        key = _table_key(job.spec)
        table = None if key is None else _known_table(job, key)
        output = job.tasks.run(SearchSpec.of(job.spec, table=table), SearchOutput)
        job.report.keep_peak("search", output.peak_memory)
        job.report.note(*output.notes)
        if key is not None and output.table is not None and output.table != table:
            with job.cache.fill(key, _TABLE_BYTES) as folder:
                if folder is not None:
                    (folder / _TABLE).write_text(output.table.model_dump_json())
        if output.search is None:
            job.spec = job.spec.model_copy(update={"costs": output.costs})
            return
        job.search = output.search
        recipe = job.spec.recipe.model_copy(update={"sparsity": output.search.sparsity})
        job.spec = job.spec.model_copy(update={"recipe": recipe})


def _table_key(spec: JobSpec) -> str | None:
    """Return the key of the node's table of costs of parts for a job; None where it needs none."""
    recipe = spec.recipe
    if recipe.target is None or not recipe.target.is_time or not recipe.is_chosen_by_cost:
        return None
    info = engine_info(recipe.target.engine or TRANSFORMERS)
    types = recipe.export_types.get(info.form or "", [recipe.output.dtype])
    facts = [spec.model.revision, info.id, info.version, types[0], recipe.timed_length, spec.threads, machine_name()]
    return f"costs-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}"


def _known_table(job: RunningJob, key: str) -> PartCosts | None:
    entry = job.cache.find(key)
    if entry is None:
        return None
    with entry:
        return PartCosts.model_validate_json((entry.path / _TABLE).read_text())
