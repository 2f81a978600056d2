"""Who acts: an API key of a team, something that acts by itself for it, or the server's own command line."""

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


@dataclass(frozen=True)
class Automation:
    """What acts by itself for a team, such as `trigger:trg_…`, `sweep:swp_…`, `worker:HOST` or `retention`."""

    team_id: str
    name: str


Actor = Principal | Automation | str
"""Who a change is written down for; the id of a team stands for the server's own command line acting for it."""


def team_of(actor: Actor) -> str:
    return actor if isinstance(actor, str) else actor.team_id


def name_of(actor: Actor) -> str:
    """As the audit trail has it: `key:ID`, the automation's name, or `operator`."""
    match actor:
        case Principal():
            return f"key:{actor.key_id}"
        case Automation():
            return actor.name
    return "operator"
