"""PostgreSQL: the declarative base, engines and sessions, the one transaction context manager, migrations.

The database's clock is the only clock: rows take their times from it, leases are compared with it.

Each transaction says with its BEGIN, in the same message, how long it waits for a lock, works at a statement and stands
still: said once for a connection it would be lost in a pooler, which lends connections by the transaction.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from select import POLLIN, poll
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from prometheus_client import Histogram
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
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DataError, DBAPIError, InvalidatePoolError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from ulid import ULID

from core.database_url import parse_database_url
from core.keepalives import postgres_keepalives
from core.settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
_MIGRATION_LOCK = 0x5ECA7EB2
"""Advisory lock: two processes that start together migrate one after the other."""
_MIGRATION_LOOK_SECONDS = 0.2
_BEFORE_FIRST_RELEASE = re.compile(r"00(0[1-9]|1[0-9]|2[0-5])")
"""Revisions of schemas that no release ever had. Those since the first release are `r0001` and so on."""
_MOST_CONNECTIONS = 40
"""Connections that a process has at most: as many as it has threads for its requests."""
_UNASKED_SECONDS = 1.0
"""A connection that was used this long ago is used again without asking the server whether it is there."""
_RETURNED_AT = "returned_at"
_BEGAN_AT = "began_at"
DATABASE_SECONDS = Histogram("secateur_database_seconds", "Time from a statement to its answer, of this process.")

Role = Literal["request", "dispatcher", "worker", "migration"]
"""Kinds of callers of the database: each has limits of its own in the settings."""

_LOCKED = "what is needed is being changed by somebody else, who has not finished in time"
_PASSING = {
    "55P03": _LOCKED,
    "40P01": _LOCKED,
    "57014": "the database did not finish in time",
    "25006": "the database takes no writes: it is a replica, or has become one",
    "25P03": "the database was left waiting for too long",
}
"""SQLSTATEs of what may go well the next time: a lock not available, a deadlock, a statement cancelled for its time,
a transaction that stood still, a write that a replica got."""


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
    """Return a new identifier such as `job_01J…`, which sorts by the time it was made."""
    return f"{prefix}_{str(ULID()).lower()}"


def any_of(values: Iterable[str]) -> str:
    """Return words as an SQL list, for a column's check: `status IN ({any_of(STATUSES)})`. Not for user input."""
    return ", ".join(f"'{value}'" for value in values)


def seconds_from_now(seconds: float | ColumnElement[float]) -> ColumnElement[Any]:
    """Return the SQL expression of a moment `seconds` from now by the database's clock."""
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds, type_=Interval)


def seconds_from_statement(seconds: float | ColumnElement[float]) -> ColumnElement[Any]:
    """Return the SQL expression of a moment `seconds` from the statement's begin: by it, an index can be searched."""
    return func.statement_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds, type_=Interval)


def database_url(settings: Settings) -> str:
    """Return the configured URL; raises ValueError where there is none (the embedded server's owner sets it)."""
    if settings.database_url is None:
        raise ValueError("SECATEUR_DATABASE_URL is not set: start the embedded server with `secateur serve`, or set it")
    return settings.database_url


def create_engine_from(settings: Settings, role: Role = "request") -> Engine:
    """Return a pooled engine whose connections are checked before use, so a restarted server causes no errors.

    Connections stay open: those that a crowd needs are made once, and not again for each of its calls. `BEGIN` sets the
    limits of `role`.
    """
    engine = create_engine(
        parse_database_url(database_url(settings)).set(drivername="postgresql+psycopg"),
        pool_size=_MOST_CONNECTIONS,
        max_overflow=0,
        pool_use_lifo=True,  # those that were used last know the statements already
        pool_timeout=10,
        connect_args={
            "connect_timeout": 5,
            "options": "-c timezone=UTC",
            **postgres_keepalives(settings),
        },
    )
    _check_before_use(engine)
    _time_statements(engine)
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


def _time_statements(engine: Engine) -> None:
    """Count the time of each statement that is answered, its way to the server and back included."""

    @event.listens_for(engine, "before_cursor_execute")
    def _(connection: Connection, *_: object) -> None:
        connection.info[_BEGAN_AT] = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def _(connection: Connection, *_: object) -> None:
        DATABASE_SECONDS.observe(time.perf_counter() - connection.info[_BEGAN_AT])


def _check_before_use(engine: Engine) -> None:
    """Have a connection replaced, and all that are older, where the server has ended it meanwhile.

    The server says so by closing it, which is seen without asking. It is asked where something came, or where the
    connection was not used for a while: whoever vanished says nothing.
    """

    @event.listens_for(engine, "checkin")
    def _(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _(connection: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
        returned_at = record.info.get(_RETURNED_AT)
        if returned_at is None:  # it was just made
            return
        driver: psycopg.Connection | None = record.driver_connection
        assert driver is not None
        try:
            if time.monotonic() - returned_at >= _UNASKED_SECONDS or _is_readable(driver):
                engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error


def _is_readable(connection: psycopg.Connection) -> bool:
    """Return whether the server sent something unrequested, or closed the connection.

    Raises psycopg.Error where it is closed on this side.
    """
    look = poll()
    look.register(connection.fileno(), POLLIN)
    return bool(look.poll(0))


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
    """Return the session factory of a new engine, `factory.kw["bind"]`, which its owner has to dispose of."""
    return sessionmaker(create_engine_from(settings, role), expire_on_commit=False)


def transient_reason(error: DBAPIError) -> str | None:
    """Return the reason that a transaction failed where it may succeed the next time, None for any other failure.

    The database is away (SQLSTATE classes 08 and 57P, or none at all: never connected), has no disk, memory or
    connection left (class 53), or a limit was reached.
    """
    if isinstance(error, DataError):  # what is written is at fault, though its SQLSTATE may be missing
        return None
    state = getattr(error.orig, "sqlstate", None)
    if (reason := _PASSING.get(state or "")) is not None:
        return reason
    if state is not None and state[:2] == "53":
        return "the database has no space, memory or connection left for it"
    if error.connection_invalidated or state is None or state[:2] == "08" or state[:3] == "57P":
        return "the database cannot be reached right now"
    return None


@contextmanager
def transaction(factory: sessionmaker[Session]) -> Iterator[Session]:
    """Open a session that commits once, at the end, or rolls back. The only place that commits."""
    with factory() as session, session.begin():
        yield session


def migrations() -> "Config":
    """Return what Alembic is told of this service's migrations."""
    from alembic.config import Config  # slow to load, and for migrations alone

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema. Safe to call from several processes at once.

    Raises ValueError for a schema from before the first release.
    """
    import alembic.command  # slow to load, and for this alone

    engine = create_engine_from(settings, "migration")
    try:
        with engine.connect() as connection:
            while not connection.scalar(select(func.pg_try_advisory_lock(_MIGRATION_LOCK))):
                connection.rollback()  # an index that is built beside others waits for whoever is in a statement
                time.sleep(_MIGRATION_LOOK_SECONDS)
            try:
                _schema_revision(connection)
                connection.commit()
                config = migrations()
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, "head")
                connection.commit()
            finally:
                if not connection.invalidated:  # else the lock went with it
                    connection.rollback()
                    connection.execute(select(func.pg_advisory_unlock(_MIGRATION_LOCK)))
                    connection.commit()
    finally:
        engine.dispose()


def has_schema(settings: Settings) -> bool:
    """Return whether the database has this version's schema, or that of a newer version, which this one tolerates.

    Raises ValueError for a schema from before the first release.
    """
    from alembic.script import ScriptDirectory  # slow to load, and for this alone

    scripts = ScriptDirectory.from_config(migrations())
    engine = create_engine_from(settings, "migration")
    try:
        with engine.connect() as connection:
            revision = _schema_revision(connection)
    finally:
        engine.dispose()
    older = {script.revision for script in scripts.walk_revisions()} - {scripts.get_current_head()}
    return revision is not None and revision not in older


def _schema_revision(connection: Connection) -> str | None:
    """Return the revision of the database's schema, None where there is none.

    Raises ValueError for a schema from before the first release.
    """
    from alembic.runtime.migration import MigrationContext  # slow to load, and for this alone

    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and _BEFORE_FIRST_RELEASE.fullmatch(revision):
        raise ValueError(
            f"the database has the schema {revision}, from before the first release, which no release upgrades: begin "
            "with a new database (SECATEUR_DATABASE_URL; where there is none, a new folder in SECATEUR_HOME), or go on "
            "with the last commit that has migrations/versions/0025_installation.py"
        )
    return revision
