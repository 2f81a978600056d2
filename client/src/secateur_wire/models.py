"""Registered models, and the facts of a model."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from secateur_wire.base import OneOf, WireModel
from secateur_wire.discoveries import ModelDiscovery
from secateur_wire.provenance import ModelProvenance

Task = Literal["language-model", "image-classification"]


class ImageShape(WireModel):
    """Images that a classifier takes: channels, and height and width where its config has them."""

    channels: int
    height: int | None
    width: int | None


class ModelSummary(WireModel):
    """Facts of a model as the API shows them.

    Token counts are null for an image classifier, `classes` and `image` for a language model. `layers` are decoder
    layers, or a classifier's convolutions and linear layers.
    """

    not_promised: ClassVar[frozenset[str]] = frozenset(
        {"task", "hidden_size", "vocabulary_size", "context_length", "tied_embeddings", "classes", "image"}
    )

    task: Annotated[str, OneOf(Task)] = "language-model"
    family: str
    architecture: str
    parameters: int
    prunable_parameters: int
    bytes: int
    dtype: str
    layers: int = 0
    hidden_size: int | None = None
    vocabulary_size: int | None = None
    context_length: int | None = None
    tied_embeddings: bool | None = None
    classes: int | None = None
    image: ImageShape | None = None

    @property
    def reads_images(self) -> bool:
        """Return whether the model is an image classifier; a language model reads texts."""
        return self.classes is not None


class Model(ModelSummary):
    """A registered model. `revision` is the hash of its content, `parameters` counts tied weights once.

    Until its architecture is discovered, `discovery` has the state of the discovery, and its facts come only from its
    config and headers: `prunable_parameters` is 0 and `parameters` counts every stored weight. `provenance` is null for
    a model that came without a signed statement.
    """

    id: str
    object: Literal["model"] = "model"
    name: str
    source: str
    revision: str
    created_at: datetime
    discovery: ModelDiscovery | None = None
    provenance: ModelProvenance | None = None
