"""Resources that triggers work with."""

from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.hub_lookup import HubFindings, HubLookup
from core.service.teams.principal import Actor
from core.settings import Settings
from core.storage import Store


@dataclass(frozen=True)
class TriggerContext:
    """Resources of a process that fires triggers; `secret` is the server's."""

    sessions: sessionmaker[Session]
    store: Store
    settings: Settings
    hub: HubLookup
    secret: bytes

    def request(self, session: Session, caller: Actor, findings: HubFindings) -> RequestContext:
        """Return the context in which a caller's request is checked; `findings` are what the hub has of its names."""
        return RequestContext(session, caller, self.store, self.settings, findings)
