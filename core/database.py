"""PostgreSQL: the declarative base, engines and sessions, the one transaction context manager, migrations.

The database's clock is the only clock: rows take their times from it, leases are compared with it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Engine, Interval, MetaData, create_engine, func, make_url, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from ulid import ULID

from core.settings import Settings

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
_MIGRATION_LOCK = 0x5ECA7EB2
"""Advisory lock: two processes that start together migrate one after the other."""


class Base(DeclarativeBase):
    """Base of all tables. Times are UTC with zone; dictionaries are JSONB. No table declares a relationship."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's declared interface
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
    }


def new_id(prefix: str) -> str:
    """An identifier such as `job_01J…`: sorts by the time it was made."""
    return f"{prefix}_{str(ULID()).lower()}"


def any_of(values: Iterable[str]) -> str:
    """Words as SQL lists them, for the check of a column: `status IN ({any_of(STATUSES)})`. They are our own."""
    return ", ".join(f"'{value}'" for value in values)


def seconds_from_now(seconds: float) -> ColumnElement[Any]:
    """A moment by the database's clock."""
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds, type_=Interval)


def database_url(settings: Settings) -> str:
    """The configured URL; raises ValueError where there is none (the embedded server's owner sets it)."""
    if settings.database_url is None:
        raise ValueError("SECATEUR_DATABASE_URL is not set: start the embedded server with `secateur serve`, or set it")
    return settings.database_url


def create_engine_from(settings: Settings) -> Engine:
    """A pooled engine whose connections are checked before use, so a restarted server costs nobody an error."""
    return create_engine(
        make_url(database_url(settings)).set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=30,
        pool_timeout=10,
        connect_args={"connect_timeout": 5, "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=600s"},
    )


def session_factory(settings: Settings) -> sessionmaker[Session]:
    """Sessions of a new engine; `factory.kw["bind"]` is the engine, to be disposed of by its owner."""
    return sessionmaker(create_engine_from(settings), expire_on_commit=False)


@contextmanager
def transaction(factory: sessionmaker[Session]) -> Iterator[Session]:
    """A session that commits once, at the end, or rolls back. The only place that commits."""
    with factory() as session, session.begin():
        yield session


def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema. Safe to call from several processes at once."""
    import alembic.command  # slow to load, and for this alone
    import alembic.config

    engine = create_engine_from(settings)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            try:
                connection.commit()
                config = alembic.config.Config()
                config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, "head")
                connection.commit()
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _MIGRATION_LOCK})
                connection.commit()
    finally:
        engine.dispose()
