"""PostgreSQL: the declarative base, engines and sessions, the one transaction context manager, migrations.

The database's clock is the only clock: rows take their times from it, leases are compared with it.

Each transaction says with its BEGIN, in the same message, how long it waits for a lock, works at a statement and stands
still: said once for a connection it would be lost in a pooler, which lends connections by the transaction.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    Interval,
    MetaData,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from ulid import ULID

from core.keepalives import postgres_keepalives
from core.settings import Settings

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
_MIGRATION_LOCK = 0x5ECA7EB2
"""Advisory lock: two processes that start together migrate one after the other."""
_MIGRATION_LOOK_SECONDS = 0.2

Role = Literal["request", "dispatcher", "worker", "migration"]
"""Kinds of callers of the database: each has limits of its own in the settings."""

_HELD = "what is needed is being changed by somebody else, who has not finished in time"
_PASSING = {
    "55P03": _HELD,
    "40P01": _HELD,
    "57014": "the database did not finish in time",
    "25P03": "the database was left waiting for too long",
}
"""SQLSTATEs of what may go well the next time: a lock not available, a deadlock, a statement cancelled for its time,
a transaction that stood still."""


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


def create_engine_from(settings: Settings, role: Role = "request") -> Engine:
    """A pooled engine whose connections are checked before use, so a restarted server costs nobody an error.

    `BEGIN` goes with the limits of `role`.
    """
    engine = create_engine(
        make_url(database_url(settings)).set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=30,
        pool_timeout=10,
        connect_args={
            "connect_timeout": 5,
            "options": "-c timezone=UTC",
            **postgres_keepalives(settings),
        },
    )
    begin = _begin(settings, role)

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            return
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.autocommit = True  # or the driver would send a BEGIN of its own before
        connection.exec_driver_sql(begin)

    return engine


def _begin(settings: Settings, role: Role) -> str:
    lock, statement, idle = {
        "request": (
            settings.database_request_lock_seconds,
            settings.database_request_statement_seconds,
            settings.database_request_idle_seconds,
        ),
        "dispatcher": (
            settings.database_dispatcher_lock_seconds,
            settings.database_dispatcher_statement_seconds,
            settings.database_dispatcher_idle_seconds,
        ),
        "worker": (
            settings.database_worker_lock_seconds,
            settings.database_worker_statement_seconds,
            settings.database_worker_idle_seconds,
        ),
        "migration": (
            settings.database_migration_lock_seconds,
            settings.database_migration_statement_seconds,
            settings.database_migration_idle_seconds,
        ),
    }[role]
    limits = {"lock_timeout": lock, "statement_timeout": statement, "idle_in_transaction_session_timeout": idle}
    return "; ".join(["BEGIN", *(f"SET LOCAL {name} = {round(1000 * seconds)}" for name, seconds in limits.items())])


def session_factory(settings: Settings, role: Role = "request") -> sessionmaker[Session]:
    """Sessions of a new engine; `factory.kw["bind"]` is the engine, to be disposed of by its owner."""
    return sessionmaker(create_engine_from(settings, role), expire_on_commit=False)


def passing_fault(error: DBAPIError) -> str | None:
    """Return what kept a transaction from its end that may go well the next time, None where it is of another kind.

    The database is away (SQLSTATE classes 08 and 57P, or none at all: never connected), or a limit was reached.
    """
    state = getattr(error.orig, "sqlstate", None)
    if (fault := _PASSING.get(state or "")) is not None:
        return fault
    if error.connection_invalidated or state is None or state[:2] == "08" or state[:3] == "57P":
        return "the database cannot be reached right now"
    return None


@contextmanager
def transaction(factory: sessionmaker[Session]) -> Iterator[Session]:
    """A session that commits once, at the end, or rolls back. The only place that commits."""
    with factory() as session, session.begin():
        yield session


def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema. Safe to call from several processes at once."""
    import alembic.command  # slow to load, and for this alone
    import alembic.config

    engine = create_engine_from(settings, "migration")
    try:
        with engine.connect() as connection:
            while not connection.scalar(select(func.pg_try_advisory_lock(_MIGRATION_LOCK))):
                connection.rollback()  # an index that is built beside others waits for whoever is in a statement
                time.sleep(_MIGRATION_LOOK_SECONDS)
            try:
                connection.commit()
                config = alembic.config.Config()
                config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, "head")
                connection.commit()
            finally:
                connection.rollback()
                connection.execute(select(func.pg_advisory_unlock(_MIGRATION_LOCK)))
                connection.commit()
    finally:
        engine.dispose()
