"""Resolution of jobs on image classifiers: labelled images instead of text, and recovery on them."""

from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import ColumnElement

from core.engine.recovery.completion import complete_image_recovery
from core.engine.recovery.request import RECOVERIES, Recovery, recoveries_where
from core.methods.registry import get_method
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.request import ResolvedRequest
from core.pipeline.recipes.validation import calibrated_method, calibrated_variant
from core.service.jobs.gates import require_measured
from core.service.jobs.resolution.context import RequestContext, ResolvedInputs, unique_names
from core.service.jobs.resolution.dataset import SELF, DatasetNeeds, hub_facts, resolve_dataset, row_facts
from core.service.jobs.resolution.model import ResolvedModel
from core.service.jobs.schemas import JobBody
from core.service.registry.tables import DatasetRow
from core.service.sources.hub_datasets import HubDataset
from core.service.sources.references import FileImages, HubImages, ImageReference, StoredImages
from secateur_wire.errors import InvalidRequest, TooFewImages, UnusableDataset
from secateur_wire.job_body import Calibration


@dataclass(frozen=True)
class ImageNeeds(DatasetNeeds[ImageReference]):
    """Requirements of an image set; `classes` are the model's."""

    classes: int

    is_of_kind: ClassVar[ColumnElement[bool]] = DatasetRow.images.is_not(None)
    registered: ClassVar[str] = "registered image sets"
    other_names: ClassVar[str] = "one of the hub (org/name[:config[:split]])"

    def refer_to_row(self, row: DatasetRow) -> ImageReference:
        _check_fits(row, self)
        kind: type[FileImages | StoredImages] = FileImages if row.prefix is None else StoredImages
        return kind.model_validate(row_facts(row, "image_field", "label_field"))

    def refer_to_hub(self, name: str, dataset: HubDataset) -> HubImages:
        return HubImages.model_validate(hub_facts(name, dataset, self.use) | {"bytes": dataset.bytes})

    def refer_to_model(self) -> ImageReference:
        raise UnusableDataset(
            f"{self.param}: {SELF!r} is text that a language model writes, but an image classifier needs images: name "
            "an image set",
            param=self.param,
        )


def resolve_image_inputs(
    context: RequestContext, body: JobBody, request: ResolvedRequest, model: ResolvedModel
) -> ResolvedInputs:
    """Return the resolved parts of a job that exist only for images; raises the error that names the fault."""
    _refuse_text(body)
    description = model.description.classifier
    variant = calibrated_variant(request.method, request.pattern, request.parameters)
    if variant.needs.calibration and body.calibration is None:
        reader = calibrated_method(request.method, request.parameters).id
        raise InvalidRequest(
            f'calibration is required: {reader} measures or trains on labelled images, for example "calibration": '
            '{"dataset": "NAME", "samples": 1024}',
            param="calibration",
        )
    images: ImageReference | None = None
    if body.calibration is not None:
        needs = ImageNeeds("calibration", "calibration.dataset", body.calibration.samples, description.classes)
        images = resolve_dataset(context, body.calibration.dataset, needs)
    evaluation = [
        resolve_dataset(context, name, ImageNeeds("evaluation", param, body.evaluation.samples, description.classes))
        for param, name in unique_names(body.evaluation.datasets, "evaluation.datasets")
    ]
    require_measured(body.gates, body.evaluation, description.model_task)
    recovery, training = _recovery(context, body, images, description.classes)
    output = resolve_output(body.output, description, request)
    images_of = {
        "calibration": None if images is None else images.model_dump(mode="json"),
        "evaluation": [each.model_dump(mode="json") for each in evaluation],
        "recovery": None if training is None else training.model_dump(mode="json"),
    }
    return ResolvedInputs({"output": output, "recovery": recovery}, {"task": description.task, "images": images_of})


def _refuse_text(body: JobBody) -> None:
    """Refuse fields that belong to language models: raises InvalidRequest."""
    language_fields: dict[str, object] = {
        "calibration.sequence_length": body.calibration and body.calibration.sequence_length,
        "calibration.generated": body.calibration and body.calibration.generated,
        "calibration.shape": body.calibration and body.calibration.shape,
        "calibration.answers": body.calibration and body.calibration.answers,
        "calibration.counted_tokens": body.calibration and body.calibration.counted_tokens,
        "evaluation.shape": body.evaluation.shape,
        "evaluation.counted_tokens": body.evaluation.counted_tokens,
        "evaluation.sequence_length": body.evaluation.sequence_length,
        "evaluation.tasks": body.evaluation.tasks,
        "evaluation.task_limit": body.evaluation.task_limit,
        "evaluation.num_fewshot": body.evaluation.num_fewshot,
        "evaluation.prompts": body.evaluation.prompts,
        "evaluation.answers": body.evaluation.answers,
    }
    for param, value in language_fields.items():
        if value:
            raise InvalidRequest(
                f"{param} is only for language models, but the model is an image classifier", param=param
            )


def _recovery(
    context: RequestContext, body: JobBody, images: ImageReference | None, classes: int
) -> tuple[Recovery | None, ImageReference | None]:
    """Return the recovery with its defaults, and its training images; both None without a recovery."""
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
        others = recoveries_where(lambda each: each.trains_classifiers and not each.learns_from_model)
        raise InvalidRequest(
            f"recovery.method: {recovery.method} learns from the dense model, but nothing was pruned here: use "
            f"{' or '.join(others)}",
            param="recovery.method",
        )
    if recovery.dataset is not None:
        needs = ImageNeeds("calibration", "recovery.dataset", recovery.samples, classes)
        return recovery, resolve_dataset(context, recovery.dataset, needs)
    if images is None:
        raise InvalidRequest(
            'recovery.dataset is required, for there are no calibration images to train on: add "dataset": "NAME" to '
            'recovery, or "calibration": {"dataset": "NAME"} to the job',
            param="recovery.dataset",
        )
    assert isinstance(body.calibration, Calibration)
    return recovery.model_copy(update={"samples": recovery.samples or body.calibration.samples}), images


def _check_fits(row: DatasetRow, needs: ImageNeeds) -> None:
    """Check an image set by its row only; the runner compares the labels themselves."""
    if row.images is None or row.classes is None:
        raise UnusableDataset(
            f"{needs.param}: {row.name!r} has text, but an image classifier needs images: name an image set",
            param=needs.param,
        )
    if row.classes > needs.classes:
        raise UnusableDataset(
            f"{needs.param}: {row.name!r} has labels of {row.classes} classes, but the model has {needs.classes}",
            param=needs.param,
        )
    if row.images < (needs.samples or 1):
        raise TooFewImages(
            f"{needs.part} needs {needs.samples} images, but {row.name!r} has {row.images}: use fewer samples, or "
            "register more images",
            param=f"{needs.part}.samples",
        )
