"""Readers of small files of models that are elsewhere: in the store, or on the hub."""

from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.sources.header_only_folder import Read
from core.service.sources.hub import Hub
from core.service.sources.hub_access import open_access
from core.service.sources.hub_tokens import find_access
from core.service.sources.references import FileReference, HubModel, StoredModel
from core.settings import Settings
from core.storage import Store


def read_from_store(store: Store, prefix: str) -> Read:
    """Return what reads files below a prefix of the store."""

    def read(file: FileReference, start: int, end: int) -> bytes:
        return b"".join(store.open_range(prefix, file.path, start, end))

    return read


def read_model(
    sessions: sessionmaker[Session], store: Store, team_id: str, model: StoredModel | HubModel, settings: Settings
) -> Read:
    """Return what reads files of a model of the store or, by a team's access, of the hub."""
    if isinstance(model, StoredModel):
        return read_from_store(store, model.prefix)
    return _read_from_hub(sessions, team_id, model, settings)


def _read_from_hub(sessions: sessionmaker[Session], team_id: str, model: HubModel, settings: Settings) -> Read:
    """Return what reads files of a repository of the hub, by a team's access to it."""
    with transaction(sessions) as session:
        access = find_access(session, team_id, settings)
    hub = Hub(settings).with_credential(open_access(access, settings))

    def read(file: FileReference, start: int, end: int) -> bytes:
        return b"".join(hub.open_range("model", model.repository, model.revision, file.path, start, end))

    return read
