"""References to the model, texts and images of a job, resolved when it was submitted.

They contain everything that a worker needs to fetch them, and are stored as JSON in the job's `sources`. `kind` is the
place: a folder of this machine, the store, the hub, or none (text that the model generates).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from core.engine.architectures.architecture import Architecture
from secateur_wire.chat import Shape

Use = Literal["calibration", "evaluation"]


class _Reference(BaseModel):
    model_config = ConfigDict(frozen=True)


class FileReference(_Reference):
    """One file to fetch. `path` is relative, with `/`; small files of the hub have `git_blob` instead of `sha256`."""

    path: str
    bytes: int
    sha256: str | None = None
    git_blob: str | None = None


class _ModelReference(_Reference):
    """Base of models. `discovered` is the architecture of a model that is not listed."""

    name: str
    discovered: Architecture | None = None


class FolderModel(_ModelReference):
    """A registered folder, used without a copy. `revision` is the hash of its content."""

    kind: Literal["folder"] = "folder"
    path: Path
    revision: str


class StoredModel(_ModelReference):
    """An uploaded model, or a job's artifact, under a prefix of the store. `revision` is the hash of its content.

    A packed artifact is unpacked before use: its weights then take `unpacked_bytes`. Only a model that `is_artifact`
    may have layers of different shapes.
    """

    kind: Literal["store"] = "store"
    prefix: str
    revision: str
    files: tuple[FileReference, ...]
    unpacked_bytes: int | None = None
    is_artifact: bool = False


class HubModel(_ModelReference):
    """Files of a repository of the hub at one commit, which is the `revision`. `licence` is the id in its card.

    Unless it `is_public`, the hub is asked at each use whether the team may read it. The same applies to datasets.
    """

    kind: Literal["hub"] = "hub"
    repository: str
    revision: str
    files: tuple[FileReference, ...]
    is_public: bool = False
    licence: str | None = Field(None, exclude_if=lambda value: value is None)


class FileText(_Reference):
    """A registered file, used without a copy."""

    kind: Literal["folder"] = "folder"
    name: str
    path: Path
    format: str
    text_field: str
    sha256: str


class StoredText(_Reference):
    """An uploaded text: one file under a prefix of the store."""

    kind: Literal["store"] = "store"
    name: str
    prefix: str
    file: FileReference
    format: str
    text_field: str


class HubText(_Reference):
    """A split of a hub dataset at one commit, up to a number of characters (null: all of it).

    Where `config` or `split` is null, the repository's default for `use` is chosen when it is fetched.
    """

    kind: Literal["hub"] = "hub"
    name: str
    repository: str
    revision: str
    config: str | None
    split: str | None
    use: Use
    characters: int | None
    is_public: bool = False


class FileImages(_Reference):
    """A registered file or folder of images, used without a copy.

    `sha256` is the hash of the file, or of the folder's content.
    """

    kind: Literal["folder_images"] = "folder_images"
    name: str
    path: Path
    format: str
    image_field: str
    label_field: str
    sha256: str


class StoredImages(_Reference):
    """Uploaded images: one Parquet file under a prefix of the store."""

    kind: Literal["stored_images"] = "stored_images"
    name: str
    prefix: str
    file: FileReference
    format: str
    image_field: str
    label_field: str


class HubImages(_Reference):
    """Split of a hub dataset at one commit, all of it.

    `bytes` is the total of the repository's files, an upper bound for the split. Where `config` or `split` is null, the
    repository's default for `use` is chosen when it is fetched.
    """

    kind: Literal["hub_images"] = "hub_images"
    name: str
    repository: str
    revision: str
    config: str | None
    split: str | None
    use: Use
    bytes: int
    is_public: bool = False


class SelfText(_Reference):
    """Text that the model generates: enough for `samples` windows of `sequence_length` tokens."""

    kind: Literal["self"] = "self"
    name: str
    samples: int
    sequence_length: int
    seed: int
    shape: Shape = Field("text", exclude_if=lambda shape: shape == "text")


class AnsweredText(_Reference):
    """Conversations whose last question the model answers: enough for `samples` windows of `sequence_length` tokens."""

    kind: Literal["answered"] = "answered"
    name: str
    prompts: Annotated[FileText | StoredText | HubText, Field(discriminator="kind")]
    samples: int
    sequence_length: int
    seed: int


class TaskReference(_Reference):
    """Questions of a zero-shot task. `hub` null: a local copy, which the worker must have."""

    name: str
    hub: HubText | None


ModelReference = Annotated[FolderModel | StoredModel | HubModel, Field(discriminator="kind")]
TextReference = Annotated[FileText | StoredText | HubText | SelfText | AnsweredText, Field(discriminator="kind")]
ImageReference = Annotated[FileImages | StoredImages | HubImages, Field(discriminator="kind")]
DataReference = Annotated[
    FileText | StoredText | HubText | SelfText | AnsweredText | FileImages | StoredImages | HubImages,
    Field(discriminator="kind"),
]
"""Data for a job's calibration, training or evaluation: texts, or images for a classifier."""
model_references: TypeAdapter[ModelReference] = TypeAdapter(ModelReference)
text_references: TypeAdapter[TextReference] = TypeAdapter(TextReference)
image_references: TypeAdapter[ImageReference] = TypeAdapter(ImageReference)
data_references: TypeAdapter[DataReference] = TypeAdapter(DataReference)
