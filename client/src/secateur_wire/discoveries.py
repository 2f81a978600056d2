"""Discoveries of architectures that nobody listed."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import OneOf, WireModel
from secateur_wire.states import DiscoveryState


class DiscoveryError(WireModel):
    """Reason that an architecture cannot be taken."""

    code: str
    message: str


class ModelDiscovery(WireModel):
    """Progress of finding out what a registered model is; unknown: nobody asked yet, which inspecting it does."""

    state: Annotated[str, OneOf(Literal["unknown", "waiting", "running", "failed"])]
    error: DiscoveryError | None


class Discovery(WireModel):
    """A discovery of what a model is. Its id is made of the model's config and headers, and of the fleet's version of
    transformers: whoever has the same model has the same discovery. `error` is why it failed.
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
