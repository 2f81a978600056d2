"""Stages of language models: the search for a target, pruning, the measurement of sensitivity, and texts to read."""

from core.pipeline.messages import GenerateSpec, JobSpec, LanguageSpec
from core.pipeline.results import GenerationOutput, PruneOutput, SearchOutput
from secateur_wire.reports import Generation
from worker.supervisor.runner_tasks import keep_peak
from worker.supervisor.stages.stage import JobStage, RunningJob


class SearchSparsity(JobStage):
    """Search for the sparsity of a latency, before anything is pruned."""

    def applies(self, spec: JobSpec) -> bool:
        target = spec.recipe.target
        return isinstance(spec, LanguageSpec) and target is not None and target.latency_ratio is not None

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.0, 0.0

    def run(self, job: RunningJob) -> None:
        output = job.tasks.run(job.language.model_copy(update={"task": "search"}), SearchOutput)
        job.search = output
        recipe = job.spec.recipe.model_copy(update={"sparsity": output.search.sparsity})
        job.spec = job.spec.model_copy(update={"recipe": recipe})


class PruneModel(JobStage):
    """Pruning, and the measurement of what is left where no recovery follows."""

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and not spec.recipe.measures

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.0, 0.90 if spec.recipe.recovery is None else 0.40

    def run(self, job: RunningJob) -> None:
        output = job.tasks.run(job.language, PruneOutput)
        job.metrics, job.report, job.expected = output.metrics, output.report, output.expected
        if job.search is not None:
            keep_peak(job.report, "search", job.search)


class MeasureSensitivity(JobStage):
    """Measurement of each layer alone, which makes no model."""

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, LanguageSpec) and spec.recipe.measures

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.0, 0.99

    def run(self, job: RunningJob) -> None:
        output = job.tasks.run(job.language.model_copy(update={"task": "sensitivity"}), PruneOutput)
        job.metrics, job.report = output.metrics, output.report


class GenerateTexts(JobStage):
    """Texts that dense and pruned write after the job's prompts, for people to read."""

    shown_as = "evaluate"

    def applies(self, spec: JobSpec) -> bool:
        is_pruned = isinstance(spec, LanguageSpec) and not spec.recipe.measures
        return is_pruned and bool(spec.recipe.evaluation.prompts)

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.91, 0.92

    def run(self, job: RunningJob) -> None:
        evaluation, report = job.spec.recipe.evaluation, job.report
        spec = GenerateSpec(
            models={"dense": job.spec.model.place, "pruned": job.spec.artifact_place},
            prompts=evaluation.prompts,
            tokens=evaluation.prompt_tokens,
            device=job.spec.device,
            threads=job.spec.threads,
        )
        output = job.tasks.run_optional(spec, GenerationOutput, report, otherwise="Nothing was generated")
        if output is not None:
            report.generations = output.generations
        else:
            report.generations = [Generation(prompt=prompt, dense=None, pruned=None) for prompt in evaluation.prompts]
