"""Inputs of a job on a classifier: image sets, prepared for its network, and the store that it resumes from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.engine.architectures.description import USUAL_SIDE
from core.engine.datasets.image_cache import ImageFiles, ImageSelection, open_images
from core.engine.datasets.image_set import ImageSet
from core.engine.datasets.preprocessing import read_preprocessing
from core.engine.models.classifier import ClassifierFolder
from core.engine.recovery.request import Recovery
from core.engine.resume.store import JsonObject, ResumeStore, Runtime, fingerprint
from core.pipeline.messages import ClassifierSpec, ImageSource


@dataclass(frozen=True)
class Images:
    """Image sets of one job, opened."""

    calibration: ImageSet | None
    recovery: ImageSet | None
    evaluation: dict[str, ImageSet]

    @property
    def counts(self) -> dict[str, object]:
        """Return the number of images in each set, for the report."""
        return {
            "calibration": None if self.calibration is None else len(self.calibration),
            "recovery": None if self.recovery is None else len(self.recovery),
            "evaluation": {name: len(each) for name, each in self.evaluation.items()},
        }


def open_image_sets(
    spec: ClassifierSpec, folder: ClassifierFolder, recovery: Recovery | None, note: Callable[[str], None]
) -> Images:
    """Open the image sets of a job; `note` is called with remarks on irregular images."""
    recipe = spec.recipe
    preprocessing = read_preprocessing(folder.path, folder.raw_config, folder.description.image)

    def opened(source: ImageSource, choice: ImageSelection) -> ImageSet:
        place = ImageFiles(
            source.name, source.path, source.format, source.sha256, source.image_field, source.label_field
        )
        return open_images(
            place, preprocessing, folder.description.labels, choice=choice, cache=spec.work / "images", note=note
        )

    calibration = recovered = None
    if spec.calibration is not None:
        assert recipe.calibration is not None
        choice = ImageSelection(recipe.calibration.samples, recipe.calibration.seed, "calibration")
        calibration = opened(spec.calibration, choice)
    if spec.recovery is not None:
        assert recovery is not None
        recovered = opened(spec.recovery, ImageSelection(recovery.samples, recovery.seed, "recovery"))
    choice = ImageSelection(recipe.evaluation.samples)
    return Images(calibration, recovered, {each.name: opened(each, choice) for each in spec.evaluation})


def image_shape(folder: ClassifierFolder, images: Images) -> tuple[int, int, int]:
    """Return channels, height and width of the images that the model runs on: the job's, or else its config's."""
    for each in (*images.evaluation.values(), images.calibration, images.recovery):
        if each is not None:
            channels, height, width = each.batch([0]).shape[1:]
            return channels, height, width
    image = folder.description.image
    return image.channels, image.height or USUAL_SIDE, image.width or USUAL_SIDE


def prune_facts(spec: ClassifierSpec) -> JsonObject:
    """Return the facts that the rounds of a method depend on."""
    return {
        **spec.recipe.model_dump(mode="json", include={"method", "sparsity", "pattern", "parameters", "calibration"}),
        "revision": spec.model.revision,
        "images": None if spec.calibration is None else spec.calibration.sha256,
    }


def resume_store(spec: ClassifierSpec, stage: str, facts: JsonObject, device: torch.device) -> ResumeStore:
    """Return the store that a stage resumes from; classifiers are float32."""
    return ResumeStore(spec.work, fingerprint(stage, facts, Runtime.of(device, torch.float32)), spec.previous)
