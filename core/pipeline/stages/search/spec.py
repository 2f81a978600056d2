"""Search for the sparsity of a latency, before anything is pruned."""

from typing import Final, Literal

from core.pipeline.messages import JobSpec, LanguageSpec, Spec, TaskOutput
from core.pipeline.reports.report import LatencySearch
from core.pipeline.stages.stage import JobStage, RunningJob

SEARCHED: Final = 0.1
"""Progress of the job at which the search ends."""


class SearchSpec(LanguageSpec, Spec):
    """Spec of timing shapes for the job's `target.latency_ratio`."""

    task: Literal["search"] = "search"


class SearchOutput(TaskOutput):
    """Result of the search for a target of latency."""

    search: LatencySearch


class SearchSparsity(JobStage):
    """Stage that searches for the sparsity of a latency, before anything is pruned."""

    rank = 20
    part = 0.0, SEARCHED

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and spec.recipe.request.is_timed

    def supervise(self, job: RunningJob) -> None:
        output = job.tasks.run(SearchSpec.of(job.spec), SearchOutput)
        job.search = output.search
        job.report.keep_peak("search", output.peak_memory)
        recipe = job.spec.recipe.model_copy(update={"sparsity": output.search.sparsity})
        job.spec = job.spec.model_copy(update={"recipe": recipe})
