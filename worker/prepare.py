"""Preparation before a version runs, `python -m worker.prepare`; it may run repeatedly, and several times at once.

It migrates the database to this version's schema, which the version before tolerates. It creates the store's bucket if
it is missing, and marks the store as this installation's. It refuses a store that belongs to another installation. With
`--wait` it changes nothing, and ends when the database has the schema: for processes that start at the same time.
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
    """Migrate the database and open the store; create its bucket and mark it as this installation's if needed.

    Raises ValueError for wrong settings, SQLAlchemyError, StoreUnavailable and StoreOfAnother.
    """
    # Loading the S3 client takes as long as everything else together, and waiting does not need it.
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
    """Return when the database has this version's schema or a newer one, however long that takes."""
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
