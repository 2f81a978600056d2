"""Measurement of each layer of a language model alone; it produces no model."""

from typing import ClassVar, Literal

from core.pipeline.messages import JobSpec, LanguageSpec, PruneOutput, Spec
from core.pipeline.stages.stage import JobStage, RunningJob


class SensitivitySpec(LanguageSpec, Spec):
    """Spec of pruning each layer alone, and writing figures and a chart."""

    saves_progress: ClassVar[bool] = True
    task: Literal["sensitivity"] = "sensitivity"


class MeasureSensitivity(JobStage):
    """Stage that measures each layer alone; it produces no model."""

    rank = 50
    part = 0.0, 0.99

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and spec.recipe.measures

    def supervise(self, job: RunningJob) -> None:
        job.begin_report(job.tasks.run(SensitivitySpec.of(job.spec), PruneOutput))
