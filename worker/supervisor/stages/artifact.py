"""Stages of an artifact that is written: how fast it is, whether it loads, and its weights in another form."""

from core.engine.architectures.heterogeneous import MODELLING_FILE
from core.engine.exporters.registry import OFFERED
from core.pipeline.messages import ExportSpec, JobSpec, LanguageSpec, MeasureSpec, VerifySpec
from core.pipeline.results import ExportOutput, LatencyOutput, VerificationOutput
from secateur_wire.metrics import Sizes
from worker.supervisor.runner_tasks import keep_peak
from worker.supervisor.stages.stage import JobStage, RunningJob


class MeasureLatency(JobStage):
    """Time of dense and pruned in turn. Where they do not fit in memory together, a note says so in its place."""

    shown_as = "evaluate"

    def applies(self, spec: JobSpec) -> bool:
        return not spec.recipe.measures

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.90, 0.91

    def run(self, job: RunningJob) -> None:
        images = job.report.images
        image_shape = None
        if images is not None:
            channels, height, width = images.shape
            image_shape = channels, height, width
        spec = MeasureSpec(
            dense=job.spec.model.place,
            pruned=job.spec.artifact_place,
            sequence_length=job.spec.recipe.timed_length if image_shape is None else None,
            image_shape=image_shape,
            device=job.spec.device,
            threads=job.spec.threads,
        )
        otherwise = None if job.search is not None else "Latency was not measured"
        output = job.tasks.run_optional(spec, LatencyOutput, job.report, otherwise=otherwise)
        job.metrics.latency = None if output is None else output.latency


class VerifyArtifact(JobStage):
    """Reload check: a fresh process opens the artifact as users do."""

    shown_as = "verify"

    def applies(self, spec: JobSpec) -> bool:
        return not spec.recipe.measures

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.95, 0.98

    def run(self, job: RunningJob) -> None:
        assert job.expected is not None
        report = job.report
        output = job.tasks.run(
            VerifySpec(
                artifact=job.spec.artifact_place,
                expected=job.expected,
                modules=job.spec.work / "modules",
                offload=job.spec.work / "offload",
                memory_bytes=job.spec.memory_bytes,
                device=job.spec.device,
                threads=job.spec.threads,
            ),
            VerificationOutput,
        )
        report.artifact = output.model
        keep_peak(report, "verify", output)
        report.verification = output.verification
        if output.verification.offloaded:
            report.note(
                "The whole model does not fit in memory: it was checked with its blocks' matrices on the disk, each of "
                "which was read when it was used."
            )
        if isinstance(job.spec, LanguageSpec) and output.verification.trust_remote_code:
            report.note(
                "Layers differ in shape: from_pretrained needs trust_remote_code=True, which runs this folder's own "
                f"{MODELLING_FILE}."
            )


class ExportWeights(JobStage):
    """Form of the artifact that was asked for, where that is not the one it has."""

    shown_as = "store"

    def applies(self, spec: JobSpec) -> bool:
        return OFFERED[spec.recipe.output.format].written == "after"

    def share(self, spec: JobSpec) -> tuple[float, float]:
        return 0.98, 0.99

    def run(self, job: RunningJob) -> None:
        form = job.spec.recipe.output.format
        section = job.report.exported(form)
        known = {} if section is None else section.document()
        output = job.tasks.run(ExportSpec(artifact=job.spec.artifact, form=form, section=known), ExportOutput)
        job.report.add_export(form, known | output.exported.document())
        sizes = job.metrics.bytes or Sizes()
        setattr(sizes, form, output.exported.bytes)
        job.metrics.bytes = sizes
