"""Spec of an attempt's stages: all that a claim names is fetched, and they are told where it lies."""

from pathlib import Path

from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery, stage_texts
from core.methods.registry import get_method
from core.pipeline.messages import ClassifierSpec, ImageSource, JobSpec, LanguageSpec, ModelSource, TextSource
from core.service.jobs.queue import Claim
from core.service.jobs.queue.claimed import ClaimedImages
from core.service.sources.references import ImageReference, TextReference
from core.settings import Settings
from worker.machine import usable_memory_bytes
from worker.supervisor.inputs import JobInputs


def fetch_spec(claim: Claim, inputs: JobInputs, settings: Settings, folder: Path) -> JobSpec:
    """Fetch all that a job reads; return what its stages are told.

    `folder` is the attempt's own. Raises what the fetcher and the runner report.
    """
    earlier = (folder.with_name(f"attempt-{number}") for number in claim.previous_attempts)
    previous = [each for each in earlier if each.is_dir()]  # as far as they are within reach
    if claim.images is not None:
        return _classifier_spec(claim, claim.images, inputs, settings, folder, previous)
    return _language_spec(claim, inputs, settings, folder, previous)


def _language_spec(
    claim: Claim, inputs: JobInputs, settings: Settings, folder: Path, previous: list[Path]
) -> LanguageSpec:
    model, recovery = inputs.model(claim.model), claim.recipe.recovery
    method = get_method(claim.recipe.method)
    reference = claim.calibration if method.prunes or method.measures else None
    calibration = None if reference is None else inputs.text(reference, model, "calibration.dataset")
    generated = claim.generated and reference and inputs.text(claim.generated, model, "calibration.generated")
    evaluation = [inputs.text(text, model, "evaluation.datasets") for text in claim.evaluation]
    questions = [inputs.questions(task) for task in claim.tasks]
    params = [] if recovery is None else [param for _, param, _ in stage_texts(recovery)] or ["recovery.dataset"]
    teacher = None if recovery is None else _teacher(recovery, claim, inputs, model)

    def text(reference: TextReference, param: str) -> TextSource:
        if calibration is not None and reference == claim.calibration:
            return calibration
        return inputs.text(reference, model, param)

    return LanguageSpec(
        job=claim.job_id,
        attempt=claim.attempt,
        recipe=claim.recipe,
        model=model,
        calibration=calibration,
        generated=generated,
        evaluation=evaluation,
        questions=questions,
        recovery=[text(reference, param) for reference, param in zip(claim.recovery, params, strict=True)],
        teacher=teacher,
        own_text=claim.own_text and inputs.text(claim.own_text, teacher or model, "recovery.own_text"),
        baseline=claim.baseline,
        work=folder,
        previous=previous,
        artifact=folder / "artifact",
        memory_bytes=usable_memory_bytes(settings),
        device=settings.device,
        threads=settings.threads,
        activation_budget_bytes=settings.activation_budget_bytes,
    )


def _teacher(recovery: Recovery, claim: Claim, inputs: JobInputs, model: ModelSource) -> ModelSource | None:
    """Return whom a recovery that learns from a model learns from: one that was named, else the job's own, dense."""
    if not RECOVERIES[recovery.method].learns_from_model:
        return None
    return model if claim.teacher is None else inputs.model(claim.teacher)


def _classifier_spec(
    claim: Claim, images: ClaimedImages, inputs: JobInputs, settings: Settings, folder: Path, previous: list[Path]
) -> ClassifierSpec:
    def source(reference: ImageReference | None, param: str) -> ImageSource | None:
        return None if reference is None else inputs.images(reference, param)

    return ClassifierSpec(
        job=claim.job_id,
        attempt=claim.attempt,
        recipe=claim.recipe,
        model=inputs.model(claim.model),
        calibration=source(images.calibration, "calibration.dataset"),
        recovery=source(images.recovery, "recovery.dataset"),
        evaluation=[inputs.images(each, "evaluation.datasets") for each in images.evaluation],
        baseline=claim.baseline,
        work=folder,
        previous=previous,
        artifact=folder / "artifact",
        memory_bytes=usable_memory_bytes(settings),
        device=settings.device,
        threads=settings.threads,
    )
