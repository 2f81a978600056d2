"""Pruning of a language model and, if no recovery follows, its measurement."""

from typing import ClassVar, Literal

from core.pipeline.messages import JobSpec, LanguageSpec, PruneOutput, Spec
from core.pipeline.stages.search.spec import SEARCHED
from core.pipeline.stages.stage import JobStage, RunningJob, end_of_training


class PruneSpec(LanguageSpec, Spec):
    """Spec of writing the pruned model and measuring it."""

    saves_progress: ClassVar[bool] = True
    task: Literal["prune"] = "prune"


class PruneModel(JobStage):
    """Stage that prunes and, if no recovery follows, measures the result."""

    rank = 30

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and not spec.recipe.measures

    def share(self, spec: JobSpec) -> tuple[float, float]:
        begin = SEARCHED if spec.recipe.is_searched else 0.0
        return begin, end_of_training(spec) if spec.recipe.recovery is None else 0.35

    def supervise(self, job: RunningJob) -> None:
        job.begin_report(job.tasks.run(PruneSpec.of(job.spec), PruneOutput))
