"""Actors: an API key of a team, a person, an automation that acts for a team, or the server's own command line."""

from dataclasses import dataclass

from secateur_wire.errors import Forbidden
from secateur_wire.teams import Role

RANK: dict[Role, int] = {"viewer": 0, "member": 1, "admin": 2}


@dataclass(frozen=True)
class Principal:
    """API key or person that makes a request, with the team that it acts for and its role there.

    A person (`person_id`) has no key (`key_id` is null).
    """

    team_id: str
    key_id: str | None
    role: Role
    person_id: str | None = None

    @property
    def id(self) -> str:
        """Return the id of the key or of the person, such as `key_…` or `person_…`."""
        return next(each for each in (self.key_id, self.person_id) if each is not None)

    def may(self, role: Role) -> bool:
        """Return whether the caller has the role `role` or a higher one."""
        return RANK[self.role] >= RANK[role]

    def require(self, role: Role) -> None:
        """Require that the caller has the role `role` or a higher one; raises Forbidden."""
        if self.may(role):
            return
        if self.key_id is None:
            raise Forbidden(f"this needs the role {role}; your role in this team is {self.role}")
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
    """Return the name for the audit trail: `key:ID`, `person:ID`, the automation's name, or `operator`."""
    match actor:
        case Principal(key_id=None):
            return f"person:{actor.person_id}"
        case Principal():
            return f"key:{actor.key_id}"
        case Automation():
            return actor.name
    return "operator"
