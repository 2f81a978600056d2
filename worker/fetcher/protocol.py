"""Protocol of supervisor and fetcher: one spec per line on its stdin; it answers with JSON lines, as a runner does."""

import hashlib
import json
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter

from core.engine.datasets.chat.conversations import Rendering
from core.service.sources.hub_access import HubAccess
from core.service.sources.references import (
    AnsweredText,
    HubImages,
    HubModel,
    HubText,
    SelfText,
    StoredImages,
    StoredModel,
    StoredText,
)
from core.settings import Settings
from secateur_wire.base import JsonObject

TEXT_FILE = "text"
IMAGES_FILE = "images.parquet"
MOST_CHARACTERS = 256 * 2**20
"""Largest number of characters of a split that is requested as a whole."""
MOST_IMAGE_BYTES = 64 * 2**30
"""Largest total size of a split's images."""
_GENERATION = 2
"""Version of the text generation; it is increased when the generation changes."""


class CommonFields(TypedDict):
    """Fields that are equal in all specs of an attempt."""

    settings: JsonObject
    access: HubAccess


class _FetchSpec(BaseModel):
    """Base of all specs.

    `settings` include their secrets: they are sent through the pipe, and nowhere else. `access` is the access to the
    hub.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: JsonObject
    key: str
    access: HubAccess


class FetchModelSpec(_FetchSpec):
    """Spec of fetching a model's files into the cache, verified and unpacked."""

    task: Literal["fetch_model"] = "fetch_model"
    model: Annotated[HubModel | StoredModel, Field(discriminator="kind")]


class FetchTextSpec(_FetchSpec):
    """Spec of fetching a text into the cache: one file, and its description."""

    task: Literal["fetch_text"] = "fetch_text"
    text: Annotated[HubText | StoredText, Field(discriminator="kind")]


class FetchImagesSpec(_FetchSpec):
    """Spec of fetching images into the cache: one Parquet file, and its description."""

    task: Literal["fetch_images"] = "fetch_images"
    images: Annotated[HubImages | StoredImages, Field(discriminator="kind")]


class FetchGeneratedSpec(_FetchSpec):
    """Spec of fetching an earlier generated text from the store; the result says whether it was there."""

    task: Literal["fetch_generated"] = "fetch_generated"
    prefix: str


class FetchTaskSpec(_FetchSpec):
    """Spec of fetching the questions of a zero-shot task into the cache: complete rows, as JSON lines."""

    task: Literal["fetch_task"] = "fetch_task"
    questions: HubText


FetchSpec = Annotated[
    FetchModelSpec | FetchTextSpec | FetchImagesSpec | FetchGeneratedSpec | FetchTaskSpec, Field(discriminator="task")
]
fetch_specs: TypeAdapter[FetchSpec] = TypeAdapter(FetchSpec)


class FetchedText(BaseModel):
    """Description of a text in the cache, stored beside it as a manifest: its origin and its hash.

    `rendering` is there for conversations that a chat template has rendered already.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str
    documents: int
    characters: int
    origin: dict[str, Any]
    format: str = "jsonl"
    rendering: Rendering | None = None


class FetchedImages(BaseModel):
    """Description of images in the cache, stored beside them as a manifest."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    images: int
    origin: dict[str, Any]


def with_secrets(settings: Settings) -> JsonObject:
    """Return the settings as JSON, secrets included; the same settings can be made from it."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    secrets = {name: value.get_secret_value() for name, value in values.items() if isinstance(value, SecretStr)}
    return settings.model_dump(mode="json") | secrets


def model_key(model: HubModel | StoredModel, team_id: str) -> str:
    """Return the cache key of a model.

    Models with the same files share one entry, wherever they come from. Hub models that are not public have an entry
    for each team.
    """
    facts = sorted((file.path, file.bytes, file.sha256 or file.git_blob) for file in model.files)
    return "model-" + _hash([*facts, *_reader(model, team_id)])


def text_key(text: HubText | StoredText, team_id: str) -> str:
    if isinstance(text, StoredText):
        return f"text-{text.file.sha256}"
    facts = [text.repository, text.revision, text.config, text.split, text.use, text.characters]
    return "text-" + _hash([*facts, *_reader(text, team_id)])


def images_key(images: HubImages | StoredImages, team_id: str) -> str:
    if isinstance(images, StoredImages):
        return f"images-{images.file.sha256}"
    facts = [images.repository, images.revision, images.config, images.split, images.use]
    return "images-" + _hash([*facts, *_reader(images, team_id)])


def questions_key(questions: HubText, team_id: str) -> str:
    facts = [questions.repository, questions.revision, questions.config, questions.split]
    return "task-" + _hash([*facts, *_reader(questions, team_id)])


def is_closed(reference: object) -> bool:
    """Return whether the hub must be asked each time who may read this."""
    return isinstance(reference, HubModel | HubText | HubImages) and not reference.is_public


def _reader(reference: object, team_id: str) -> list[str]:
    return [team_id] if is_closed(reference) else []


def generated_key(text: SelfText | AnsweredText, model_revision: str, questions_sha256: str | None = None) -> str:
    """Return the key of a text that a model writes; `questions_sha256` is the hash of the questions that it answers."""
    facts = [_GENERATION, model_revision, text.samples, text.sequence_length, text.seed]
    if isinstance(text, AnsweredText):
        facts += ["answers", questions_sha256]
    elif text.shape != "text":
        facts += [text.shape]
    return "generated-" + _hash(facts)


def _hash(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
