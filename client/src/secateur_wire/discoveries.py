"""Discoveries of unlisted architectures."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import OneOf, WireModel
from secateur_wire.states import DiscoveryState


class DiscoveryError(WireModel):
    """Reason why an architecture cannot be pruned."""

    code: str
    message: str


class ModelDiscovery(WireModel):
    """Progress of a registered model's discovery; unknown: not requested yet, which inspecting the model does."""

    state: Annotated[str, OneOf(Literal["unknown", "waiting", "running", "failed"])]
    error: DiscoveryError | None


class Discovery(WireModel):
    """A discovery of a model's architecture.

    Its id is a hash of the model's config and headers, and of the fleet's version of transformers: the same model has
    the same discovery in every team. `error` is the reason of a failure.
    """

    id: str
    object: Literal["discovery"] = "discovery"
    state: DiscoveryState
    architecture: str
    transformers_version: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: DiscoveryError | None
