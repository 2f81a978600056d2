"""Requests about sources."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class HubTokenBody(BaseModel):
    """A token of the hub that may read what the team prunes. It is kept sealed, and never shown again."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[SecretStr, Field(min_length=1, max_length=8000)]
