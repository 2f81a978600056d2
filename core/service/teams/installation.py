"""Identity of the installation, which a dump of its database carries along, and its own store."""

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
    """Return the id of the installation that this database is of, made at first use and the same ever after."""
    query = select(InstallationRow.id)
    existing = session.scalar(query)
    if existing is None:
        new = insert(InstallationRow).values(id=new_id("installation"))
        session.execute(new.on_conflict_do_nothing(index_elements=["is_only"]))
        return session.scalars(query).one()
    return existing


def open_own_store(settings: Settings, sessions: sessionmaker[Session]) -> OwnedStore:
    """Return the store the settings name, to be written to by this installation alone. Connects to nothing yet.

    Raises ValueError where the URL is not S3's.
    """
    return owned(open_store(settings), sessions)


def owned(store: Store, sessions: sessionmaker[Session]) -> OwnedStore:
    """Return a store as the installation of this database uses it."""

    def find_installation() -> str:
        try:
            with transaction(sessions) as session:
                return installation_id(session)
        except SQLAlchemyError as error:
            raise StoreUnavailable("the database cannot be asked whose store this is") from error

    return OwnedStore(store, find_installation)
