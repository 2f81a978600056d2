"""Resolution of jobs on image classifiers: labelled images in place of text, and recovery on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.engine.architectures.classifier_architecture import CLASSIFICATION, ClassifierDescription
from core.engine.recovery.completion import complete_image_recovery
from core.engine.recovery.registry import RECOVERIES, recoveries_where
from core.engine.recovery.request import Recovery
from core.errors import InvalidRequest
from core.methods.registry import get_method
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.parts import Output
from core.pipeline.recipes.request import ResolvedRequest
from core.pipeline.recipes.validation import calibrated_method, calibrated_variant
from core.service.jobs.gates import require_measured
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.resolution.images import ImageNeeds, resolve_images
from core.service.jobs.schemas import JobBody
from core.service.sources.references import ImageReference
from secateur_wire.job_body import Calibration


@dataclass(frozen=True)
class ResolvedImages:
    """Output and recovery with their defaults, and references to the images of a job."""

    output: Output
    recovery: Recovery | None
    sources: Mapping[str, Any]


def resolve_classifier_job(
    session: Session,
    team_id: str,
    body: JobBody,
    checked: ResolvedRequest,
    description: ClassifierDescription,
    hub: HubFindings,
) -> ResolvedImages:
    """Return what of a job is particular to images; raises the error that names the fault."""
    _refuse_text(body)
    method = calibrated_method(checked.method, checked.parameters)
    variant = calibrated_variant(checked.method, checked.pattern, checked.parameters)
    if variant.needs.calibration and body.calibration is None:
        raise InvalidRequest(
            f'calibration is required: {method.id} measures or trains on labelled images, for example "calibration": '
            '{"dataset": "NAME", "samples": 1024}',
            param="calibration",
        )
    classes = description.classes
    images: ImageReference | None = None
    if body.calibration is not None:
        needs = ImageNeeds("calibration", "calibration.dataset", body.calibration.samples, classes)
        images = resolve_images(session, team_id, body.calibration.dataset, needs, hub)
    evaluation = []
    for index, name in enumerate(body.evaluation.datasets):
        param = f"evaluation.datasets.{index}"
        if name in body.evaluation.datasets[:index]:
            raise InvalidRequest(f"{param}: {name!r} is named twice", param=param)
        needs = ImageNeeds("evaluation", param, body.evaluation.samples, classes)
        evaluation.append(resolve_images(session, team_id, name, needs, hub))
    require_measured(body.gates, body.evaluation, description.model_task)
    recovery, training = _resolve_recovery(session, team_id, body, images, classes, hub)
    output = resolve_output(body.output, description, checked)
    images_of = {
        "calibration": None if images is None else images.model_dump(mode="json"),
        "evaluation": [each.model_dump(mode="json") for each in evaluation],
        "recovery": None if training is None else training.model_dump(mode="json"),
    }
    return ResolvedImages(output, recovery, {"task": description.task, "images": images_of})


def _refuse_text(body: JobBody) -> None:
    """Refuse fields that belong to language models: raises InvalidRequest."""
    language_fields: dict[str, object] = {
        "calibration.sequence_length": body.calibration and body.calibration.sequence_length,
        "calibration.generated": body.calibration and body.calibration.generated,
        "evaluation.sequence_length": body.evaluation.sequence_length,
        "evaluation.tasks": body.evaluation.tasks,
        "evaluation.task_limit": body.evaluation.task_limit,
        "evaluation.prompts": body.evaluation.prompts,
    }
    for param, value in language_fields.items():
        if value:
            raise InvalidRequest(f"{param} belongs to language models, the model is an image classifier", param=param)


def _resolve_recovery(
    session: Session,
    team_id: str,
    body: JobBody,
    images: ImageReference | None,
    classes: int,
    hub: HubFindings,
) -> tuple[Recovery | None, ImageReference | None]:
    """Return the recovery with its defaults, and the images it trains on; both None where there is none."""
    if body.recovery is None:
        if get_method(body.method).needs.training and not get_method(body.method).prunes:
            raise InvalidRequest(
                f'recovery is required: {body.method} only trains, for example "recovery": {{"method": "finetune", '
                '"dataset": "NAME", "steps": 500, "batch_size": 128}',
                param="recovery",
            )
        return None, None
    recovery = complete_image_recovery(body.recovery)
    if RECOVERIES[recovery.method].learns_from_model and not get_method(body.method).prunes:
        others = recoveries_where(lambda each: each.trains(CLASSIFICATION) and not each.learns_from_model)
        raise InvalidRequest(
            f"recovery.method: {recovery.method} learns from the dense model, and nothing was pruned here: use "
            f"{' or '.join(others)}",
            param="recovery.method",
        )
    if recovery.dataset is not None:
        needs = ImageNeeds("calibration", "recovery.dataset", recovery.samples, classes)
        return recovery, resolve_images(session, team_id, recovery.dataset, needs, hub)
    if images is None:
        raise InvalidRequest(
            'recovery.dataset is required, for there are no calibration images to train on: add "dataset": "NAME" to '
            'recovery, or "calibration": {"dataset": "NAME"} to the job',
            param="recovery.dataset",
        )
    assert isinstance(body.calibration, Calibration)
    return recovery.model_copy(update={"samples": recovery.samples or body.calibration.samples}), images
