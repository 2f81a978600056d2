"""Requests about sources."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class HubTokenBody(BaseModel):
    """A hub token with read access to the models that the team prunes.

    It is stored encrypted, and never shown again.
    """

    model_config = ConfigDict(extra="forbid")

    token: Annotated[SecretStr, Field(min_length=1, max_length=8000)]
