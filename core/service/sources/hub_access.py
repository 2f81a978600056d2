"""Access to the hub for a team, as a worker passes it on to its fetcher.

The token stays encrypted, and is decrypted only where the hub is asked. This module does not use the database: a
fetcher starts often and has none.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.service.sources.hub import HubCredential
from core.service.teams.sealing import SecretCipher
from core.service.teams.server_secret import server_secret
from core.settings import Settings
from secateur_wire.errors import GatedModel

PURPOSE = "hub"
"""Purpose of the encryption of a team's token."""


class HubAccess(BaseModel):
    """Token for a team's requests to the hub.

    It is the team's own (`sealed`), the operator's where the settings allow that, or none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    team_id: str
    sealed: str | None = Field(None, repr=False)
    is_lent: bool = False

    @property
    def owner(self) -> Literal["team", "operator"] | None:
        if self.sealed is not None:
            return "team"
        return "operator" if self.is_lent else None


def open_access(access: HubAccess, settings: Settings) -> HubCredential | None:
    """Return the token itself. Raises GatedModel where it was encrypted with another secret than this process has."""
    if access.sealed is not None:
        try:
            opened = SecretCipher(server_secret(settings), PURPOSE).open(access.sealed.encode())
        except ValueError:
            raise GatedModel(
                "the team's hub token cannot be decrypted: SECATEUR_SECRET_KEY was changed, or differs on this "
                "worker; an admin of the team can set the token again"
            ) from None
        return HubCredential(opened, "team")
    if access.is_lent and settings.hub_token is not None:
        return HubCredential(settings.hub_token.get_secret_value(), "operator")
    return None
