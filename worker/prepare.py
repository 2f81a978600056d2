"""`python -m worker.prepare`: what must be there before a version runs. Safe to run again, and by several at once.

Brings the database to this version's schema, which the version before tolerates, makes the store's bucket where it is
missing, and marks the store as this installation's. A store that is another installation's is refused. With `--wait` it
changes nothing, and ends once the database has the schema: for what starts beside it.
"""

import sys
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from core.database import has_schema, migrate, session_factory
from core.logs import configure_logs
from core.settings import Settings
from secateur_wire.errors import StoreUnavailable

LOOK_SECONDS = 2

logger = structlog.get_logger("worker.prepare")


def prepare(settings: Settings) -> None:
    """Migrate the database and open the store, making its bucket and marking it as this installation's where needed.

    Raises ValueError for settings that make no sense, SQLAlchemyError, StoreUnavailable, StoreOfAnother.
    """
    # Brings the client of S3, which takes as long to load as all the rest: what only waits does without.
    from core.service.teams.installation import open_own_store
    from core.storage import open_store
    from core.storage.s3 import S3Store

    migrate(settings)
    logger.info("the database has this version's schema")
    store = open_store(settings)
    if isinstance(store, S3Store):
        created = store.make_bucket()
        logger.info("the bucket is there", url=settings.store_url, made=created)
    sessions = session_factory(settings, "migration")
    try:
        open_own_store(settings, sessions).require_own()
    finally:
        sessions.kw["bind"].dispose()


def wait(settings: Settings) -> None:
    """Return once the database has this version's schema or a newer one, however long that takes."""
    while True:
        try:
            if has_schema(settings):
                return
            logger.info("the database does not have this version's schema yet")
        except SQLAlchemyError as error:
            logger.warning("the database cannot be asked for its schema", error=str(error).partition("\n")[0])
        time.sleep(LOOK_SECONDS)


def main() -> int:
    settings = Settings()  # pyright: ignore[reportCallIssue]
    configure_logs(settings)
    try:
        (wait if sys.argv[1:] == ["--wait"] else prepare)(settings)
    except (SQLAlchemyError, StoreUnavailable, ValueError) as error:
        logger.error("not prepared", error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
