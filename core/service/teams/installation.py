"""Identity of the installation, which is part of every dump of its database, and its own store."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, transaction
from core.service.teams.tables import InstallationRow
from core.settings import Settings
from core.storage import OwnedStore, Store, open_store
from secateur_wire.errors import StoreUnavailable


def installation_id(session: Session) -> str:
    """Return the id of this database's installation; it is created at the first use, and never changes."""
    query = select(InstallationRow.id)
    existing = session.scalar(query)
    if existing is None:
        new = insert(InstallationRow).values(id=new_id("installation"))
        session.execute(new.on_conflict_do_nothing(index_elements=["is_only"]))
        return session.scalars(query).one()
    return existing


def open_own_store(settings: Settings, sessions: sessionmaker[Session]) -> OwnedStore:
    """Open the store in the settings, which only this installation may write to. Does not connect yet.

    Raises ValueError for a URL that is not S3's.
    """
    return owned(open_store(settings), sessions)


def owned(store: Store, sessions: sessionmaker[Session]) -> OwnedStore:
    """Return a store that checks this database's installation before it writes."""

    def find_installation() -> str:
        try:
            with transaction(sessions) as session:
                return installation_id(session)
        except SQLAlchemyError as error:
            raise StoreUnavailable("the database cannot be asked whose store this is") from error

    return OwnedStore(store, find_installation)
