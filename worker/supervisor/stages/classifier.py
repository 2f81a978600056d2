"""Stage of a job on an image classifier that one task of the runner does, for the network stays in its memory."""

from core.pipeline.messages import ClassifierSpec, JobSpec
from core.pipeline.results import PruneOutput
from worker.supervisor.stages.stage import JobStage, RunningJob


class PruneClassifier(JobStage):
    """Pruning, recovery and evaluation of a classifier, or the measurement of its sensitivity."""

    def applies(self, spec: JobSpec) -> bool:
        return isinstance(spec, ClassifierSpec)

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.0, 0.90

    def run(self, job: RunningJob) -> None:
        assert isinstance(job.spec, ClassifierSpec)
        output = job.tasks.run(job.spec, PruneOutput)
        job.metrics, job.report, job.expected = output.metrics, output.report, output.expected
