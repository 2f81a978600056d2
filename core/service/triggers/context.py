"""Resources that triggers work with."""

from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from core.service.jobs.resolution.hub_lookup import HubLookup
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
