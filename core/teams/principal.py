"""Who acts: an API key of a team, or the server's own command line for it."""

from dataclasses import dataclass

from core.errors import Forbidden
from core.teams.schemas import Role

_RANK: dict[Role, int] = {"viewer": 0, "member": 1, "admin": 2}


@dataclass(frozen=True)
class Principal:
    """Who a request acts for."""

    team_id: str
    key_id: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this key's role is `role` or above."""
        return _RANK[self.role] >= _RANK[role]

    def require(self, role: Role) -> None:
        """Raises Forbidden unless this key may."""
        if not self.may(role):
            raise Forbidden(f"this needs a key with role {role}; this key's role is {self.role}")


Actor = Principal | str
"""A principal, or the id of the team for which the server's own command line acts."""


def team_of(actor: Actor) -> str:
    return actor.team_id if isinstance(actor, Principal) else actor
