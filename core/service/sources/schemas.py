"""Requests about sources."""

from typing import Annotated

from pydantic import Field, SecretStr

from secateur_wire.requests import RequestObject


class HubTokenBody(RequestObject):
    """A hub token with read access to the models that the team prunes.

    It is stored encrypted, and never shown again.
    """

    token: Annotated[SecretStr, Field(min_length=1, max_length=8000)]
