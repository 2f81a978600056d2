"""Reload check of an artifact: a fresh process opens it as users do, and compares its outputs."""

from pathlib import Path
from typing import Literal

from core.engine.architectures.heterogeneous import MODELLING_FILE
from core.pipeline.messages import DeviceSpec, JobSpec, LanguageSpec, ModelPlace, Spec, TaskOutput
from core.pipeline.reports.report import Verification
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.base import JsonObject


class VerifySpec(DeviceSpec, Spec):
    """Spec of the reload check: open the artifact with from_pretrained in a fresh process, and compare the logits.

    `dtype` is that of the pass that gave the expected logits; None for the artifact's own.
    `modules` is the folder for an imported modelling file. `offload` is the folder for weights that are written to disk
    because the model does not fit in memory; None for quantised weights, which the libraries do not open from disk.
    """

    task: Literal["verify"] = "verify"
    artifact: ModelPlace
    expected: Path
    modules: Path
    offload: Path | None
    dtype: str | None = None


class VerificationOutput(TaskOutput):
    """Artifact as it was opened again: its description, and the figures of the check."""

    model: JsonObject
    verification: Verification


class VerifyArtifact(JobStage):
    """Stage of the reload check: a fresh process opens the artifact as users do."""

    rank = 100
    shown_as = "verify"
    part = 0.95, 0.96

    def applies(self, spec: JobSpec) -> bool:
        return not spec.recipe.measures

    def supervise(self, job: RunningJob) -> None:
        assert job.expected is not None
        report = job.report
        measured_in = None if report.rounding is None or report.engine is None else report.engine.model_dtype
        output = job.tasks.run(
            VerifySpec(
                artifact=job.spec.artifact_place,
                expected=job.expected,
                modules=job.spec.work / "modules",
                offload=None if job.spec.recipe.output.quantization is not None else job.spec.work / "offload",
                device=job.spec.device,
                threads=job.spec.threads,
                dtype=measured_in,
            ),
            VerificationOutput,
        )
        report.artifact = output.model
        report.keep_peak("verify", output.peak_memory)
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
