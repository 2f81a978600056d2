"""Resolution of dataset names where images are needed: a registered image set, or a dataset of the hub."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.errors import TooFewImages, UnknownDataset, UnusableDataset
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.resolution.text import SELF
from core.service.registry.service import find_row, names
from core.service.registry.tables import DatasetRow
from core.service.sources.hub_datasets import is_hub_dataset
from core.service.sources.references import FileImages, FileReference, HubImages, ImageReference, StoredImages, Use


@dataclass(frozen=True)
class ImageNeeds:
    """Requirements of an image set: its `use`, and how many `samples`, where null means all there are.

    `param` is its path in the body; `classes` are the model's.
    """

    use: Use
    param: str
    samples: int | None
    classes: int

    @property
    def part(self) -> str:
        """Return the part of the body that needs them: calibration, evaluation, recovery."""
        return self.param.partition(".")[0]


def resolve_images(session: Session, team_id: str, name: str, needs: ImageNeeds, hub: HubFindings) -> ImageReference:
    """Return the image set that a name stands for.

    Raises UnknownDataset, UnusableDataset where it holds text or classes that the model does not have, TooFewImages,
    and errors of its look-up on the hub.
    """
    row = find_row(session, DatasetRow, team_id, name)
    if row is not None:
        _check_fits(row, needs)
        return _registered(row)
    if name == SELF:
        raise UnusableDataset(
            f"{needs.param}: {SELF!r} is text that a language model writes, and an image classifier needs images: name "
            "an image set",
            param=needs.param,
        )
    if is_hub_dataset(name):
        dataset = hub.dataset(name, needs.use, needs.param)
        return HubImages(
            name=name,
            repository=dataset.repository,
            revision=dataset.revision,
            config=dataset.config,
            split=dataset.split,
            use=needs.use,
            bytes=dataset.bytes,
            is_public=dataset.is_public,
        )
    known = ", ".join(names(session, DatasetRow, team_id, DatasetRow.images.is_not(None))) or "none"
    raise UnknownDataset(
        f"{needs.param}: there is no dataset {name!r}; registered image sets: {known}. Or name one of the hub "
        "(org/name[:config[:split]])",
        param=needs.param,
    )


def _registered(row: DatasetRow) -> ImageReference:
    facts = {name: getattr(row, name) for name in ("name", "format", "image_field", "label_field")}
    if row.prefix is None:
        return FileImages.model_validate(facts | {"path": row.path, "sha256": row.sha256})
    assert row.files, row.id
    file = FileReference.model_validate(row.files[0])
    return StoredImages.model_validate(facts | {"prefix": row.prefix, "file": file})


def _check_fits(row: DatasetRow, needs: ImageNeeds) -> None:
    """Check an image set by its row alone; the runner matches the labels themselves."""
    if row.images is None or row.classes is None:
        raise UnusableDataset(
            f"{needs.param}: {row.name!r} holds text, and an image classifier needs images: name an image set",
            param=needs.param,
        )
    if row.classes > needs.classes:
        raise UnusableDataset(
            f"{needs.param}: {row.name!r} has labels of {row.classes} classes, the model has {needs.classes}",
            param=needs.param,
        )
    if row.images < (needs.samples or 1):
        raise TooFewImages(
            f"{needs.part} needs {needs.samples} images; {row.name!r} has {row.images}: ask for fewer samples, or "
            "register more images",
            param=f"{needs.part}.samples",
        )
