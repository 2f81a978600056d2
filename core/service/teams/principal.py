"""Actors: an API key of a team, an automation that acts for it, or the server's own command line."""

from dataclasses import dataclass

from secateur_wire.errors import Forbidden
from secateur_wire.teams import Role

_RANK: dict[Role, int] = {"viewer": 0, "member": 1, "admin": 2}


@dataclass(frozen=True)
class Principal:
    """API key of a request, with its team and role."""

    team_id: str
    key_id: str
    role: Role

    def may(self, role: Role) -> bool:
        """Return whether this key has the role `role` or a higher one."""
        return _RANK[self.role] >= _RANK[role]

    def require(self, role: Role) -> None:
        """Require that this key has the role `role` or a higher one; raises Forbidden."""
        if not self.may(role):
            raise Forbidden(f"this needs a key with role {role}; this key's role is {self.role}")


@dataclass(frozen=True)
class Automation:
    """Automation that acts for a team, such as `trigger:trg_…`, `sweep:swp_…`, `worker:HOST` or `retention`."""

    team_id: str
    name: str


Actor = Principal | Automation | str
"""Actor in the audit trail; the id of a team stands for the server's own command line acting for it."""


def team_of(actor: Actor) -> str:
    return actor if isinstance(actor, str) else actor.team_id


def name_of(actor: Actor) -> str:
    """Return the name for the audit trail: `key:ID`, the automation's name, or `operator`."""
    match actor:
        case Principal():
            return f"key:{actor.key_id}"
        case Automation():
            return actor.name
    return "operator"
