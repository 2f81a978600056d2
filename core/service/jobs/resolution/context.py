"""Context in which a request is resolved, and the resolved inputs of a task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from core.service.jobs.resolution.hub_lookup import HubFindings, HubLookup
from core.service.teams.principal import Actor, team_of
from core.settings import Settings
from core.storage import Store
from secateur_wire.errors import InvalidRequest
from secateur_wire.requests import RequestObject


@dataclass(frozen=True)
class RequestContext:
    """Session and caller of a request, and the sources of the names in it.

    `hub` has the results of this request's look-ups on the hub (`HubLookup.of`).
    """

    session: Session
    caller: Actor
    store: Store
    settings: Settings
    hub: HubFindings = field(default_factory=HubFindings)

    @property
    def team_id(self) -> str:
        return team_of(self.caller)


@dataclass(frozen=True)
class ServiceContext:
    """Resources of a process that resolves requests of any caller."""

    sessions: sessionmaker[Session]
    store: Store
    settings: Settings
    hub: HubLookup

    def request(self, session: Session, caller: Actor, findings: HubFindings) -> RequestContext:
        """Return the context in which a caller's request is checked; `findings` are its results from the hub."""
        return RequestContext(session, caller, self.store, self.settings, findings)


@dataclass(frozen=True)
class ResolvedInputs:
    """Parts of a request with their defaults, by field, and references to everything that they name."""

    parts: Mapping[str, RequestObject | None]
    sources: Mapping[str, Any]


def unique_names(names: Sequence[str], field_name: str) -> Iterator[tuple[str, str]]:
    """Yield the path in the body and the name of each item; raises InvalidRequest for a duplicate name."""
    for index, name in enumerate(names):
        param = f"{field_name}.{index}"
        if name in names[:index]:
            raise InvalidRequest(f"{param}: {name!r} is named twice", param=param)
        yield param, name
