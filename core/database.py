"""PostgreSQL: the declarative base, engines and sessions, the transaction context manager, and migrations.

The database's clock is the only clock: rows take their times from it, and leases are compared with it.

The `BEGIN` of each transaction also sets its limits for waiting for a lock, for running a statement and for being idle.
Limits that were set once for a connection would be lost in a pooler, which lends connections for one transaction.
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
"""Advisory lock: of two processes that start together, one migrates after the other."""
_MIGRATION_LOOK_SECONDS = 0.2
_BEFORE_FIRST_RELEASE = re.compile(r"00(0[1-9]|1[0-9]|2[0-5])")
"""Revisions of schemas from before the first release; revisions since then are `r0001` and so on."""
_MOST_CONNECTIONS = 40
"""Largest number of connections of a process: it has this many threads for requests."""
_UNCHECKED_SECONDS = 1.0
"""Idle time up to which a connection is used again without a check of the server."""
_RETURNED_AT = "returned_at"
_BEGAN_AT = "began_at"
DATABASE_SECONDS = Histogram("secateur_database_seconds", "Time from a statement to its answer, of this process.")

Role = Literal["request", "dispatcher", "worker", "migration"]
"""Kinds of callers of the database; the settings have limits for each."""

_LOCKED = "what is needed is being changed by somebody else, who has not finished in time"
_TRANSIENT_STATES = {
    "55P03": _LOCKED,
    "40P01": _LOCKED,
    "57014": "the database did not finish in time",
    "25006": "the database takes no writes: it is a replica, or has become one",
    "25P03": "the database was left waiting for too long",
}
"""SQLSTATEs of errors for which a retry may succeed.

They are: a lock not available, a deadlock, a statement cancelled for its time, a transaction that was idle too long,
and a write that was sent to a replica.
"""


SMALL_FACTS = "description - '{linears,structure,vocabulary,discovered,content,labels,passes}'::text[]"
"""Column expression: a model's description without the parts whose size grows with the model."""


class Base(DeclarativeBase):
    """Base class of all tables; times are UTC with zone, dictionaries are JSONB, and there are no relationships."""

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
    """Return a new identifier such as `job_01J…`; identifiers sort by the time they were created."""
    return f"{prefix}_{str(ULID()).lower()}"


def any_of(values: Iterable[str]) -> str:
    """Return words as an SQL list for a column's check: `status IN ({any_of(STATUSES)})`; not for user input."""
    return ", ".join(f"'{value}'" for value in values)


def seconds_from_now(seconds: float | ColumnElement[float]) -> ColumnElement[Any]:
    """Return the SQL expression of the time `seconds` from now, by the database's clock."""
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds, type_=Interval)


def seconds_from_statement(seconds: float | ColumnElement[float]) -> ColumnElement[Any]:
    """Return the SQL expression of the time `seconds` from the statement's begin; an index can be searched by it."""
    return func.statement_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds, type_=Interval)


def database_url(settings: Settings) -> str:
    """Return the configured URL; raises ValueError if there is none (the owner of an embedded server sets it)."""
    if settings.database_url is None:
        raise ValueError("SECATEUR_DATABASE_URL is not set: start the embedded server with `secateur serve`, or set it")
    return settings.database_url


def create_engine_from(settings: Settings, role: Role = "request") -> Engine:
    """Return a pooled engine; connections are checked before use, so that a restarted server causes no errors.

    Connections stay open, so that many calls at once do not open new ones each time. `BEGIN` sets the limits of `role`.
    """
    engine = create_engine(
        parse_database_url(database_url(settings)).set(drivername="postgresql+psycopg"),
        pool_size=_MOST_CONNECTIONS,
        max_overflow=0,
        pool_use_lifo=True,  # recently used connections already have prepared statements
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
        driver.autocommit = True  # without it the driver would send its own BEGIN first
        connection.exec_driver_sql(begin)

    return engine


def _time_statements(engine: Engine) -> None:
    """Record the time of each statement with an answer, including the network."""

    @event.listens_for(engine, "before_cursor_execute")
    def _(connection: Connection, *_: object) -> None:
        connection.info[_BEGAN_AT] = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def _(connection: Connection, *_: object) -> None:
        DATABASE_SECONDS.observe(time.perf_counter() - connection.info[_BEGAN_AT])


def _check_before_use(engine: Engine) -> None:
    """Replace a connection, and all older ones, if the server has ended it in the meantime.

    A server that ends a connection closes it, which is visible without a query. A query checks the connection if
    unexpected data has arrived, or if the connection was idle for a while, because a vanished server does not close it.
    """

    @event.listens_for(engine, "checkin")
    def _(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _(connection: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
        returned_at = record.info.get(_RETURNED_AT)
        if returned_at is None:  # it is new
            return
        driver: psycopg.Connection | None = record.driver_connection
        assert driver is not None
        try:
            if time.monotonic() - returned_at >= _UNCHECKED_SECONDS or _is_readable(driver):
                engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error


def _is_readable(connection: psycopg.Connection) -> bool:
    """Return whether the server sent something unrequested, or closed the connection.

    Raises psycopg.Error if the connection is closed on this side.
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
    """Return the session factory of a new engine, `factory.kw["bind"]`, which the caller has to dispose of."""
    return sessionmaker(create_engine_from(settings, role), expire_on_commit=False)


def transient_reason(error: DBAPIError) -> str | None:
    """Return the reason of a failure for which a retry may succeed, None for any other failure.

    Such failures are: the database is away (SQLSTATE classes 08 and 57P, or none at all: never connected); it has no
    disk, memory or connection left (class 53); or a limit was reached.
    """
    if isinstance(error, DataError):  # the data is at fault, although the SQLSTATE may be missing
        return None
    state = getattr(error.orig, "sqlstate", None)
    if (reason := _TRANSIENT_STATES.get(state or "")) is not None:
        return reason
    if state is not None and state[:2] == "53":
        return "the database has no space, memory or connections left"
    if error.connection_invalidated or state is None or state[:2] == "08" or state[:3] == "57P":
        return "the database cannot be reached right now"
    return None


@contextmanager
def transaction(factory: sessionmaker[Session]) -> Iterator[Session]:
    """Open a session that commits once, at the end, or rolls back; nothing else commits."""
    with factory() as session, session.begin():
        yield session


def migrations() -> "Config":
    """Return Alembic's configuration for this service's migrations."""
    from alembic.config import Config  # slow to load, and only needed here

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def migrate(settings: Settings) -> None:
    """Migrate the database to the newest schema; several processes may call this at once.

    Raises ValueError for a schema from before the first release, and for one that an unreleased version made.
    """
    import alembic.command  # slow to load, and only needed here

    engine = create_engine_from(settings, "migration")
    try:
        with engine.connect() as connection:
            while not connection.scalar(select(func.pg_try_advisory_lock(_MIGRATION_LOCK))):
                connection.rollback()  # building an index concurrently waits for every open transaction
                time.sleep(_MIGRATION_LOOK_SECONDS)
            try:
                _schema_revision(connection)
                connection.commit()
                config = migrations()
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, "head")
                _require_columns(connection)
                connection.commit()
            finally:
                if not connection.invalidated:  # otherwise the lock ended with the connection
                    connection.rollback()
                    connection.execute(select(func.pg_advisory_unlock(_MIGRATION_LOCK)))
                    connection.commit()
    finally:
        engine.dispose()


def has_schema(settings: Settings) -> bool:
    """Return whether the database has this version's schema, or a newer one, which this version tolerates.

    Raises ValueError for a schema from before the first release.
    """
    from alembic.script import ScriptDirectory  # slow to load, and only needed here

    scripts = ScriptDirectory.from_config(migrations())
    engine = create_engine_from(settings, "migration")
    try:
        with engine.connect() as connection:
            revision = _schema_revision(connection)
    finally:
        engine.dispose()
    older = {script.revision for script in scripts.walk_revisions()} - {scripts.get_current_head()}
    return revision is not None and revision not in older


def _require_columns(connection: Connection) -> None:
    """Require the tables and columns that the code declares, which the migrations have imported.

    Raises ValueError where one is missing: the schema of a release changes until it is out.
    """
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()"
    present = {(table, column) for table, column in connection.exec_driver_sql(query)}
    declared = {(table.name, column.name) for table in Base.metadata.tables.values() for column in table.columns}
    if missing := sorted(declared - present):
        raise ValueError(
            f"the database has no column {'.'.join(missing[0])}"
            + (f", nor {len(missing) - 1} others that are needed" if missing[1:] else "")
            + ": an unreleased version made it, and its schema changed before the release. Use a new database "
            "(SECATEUR_DATABASE_URL; if that is not set, a new folder in SECATEUR_HOME)"
        )


def _schema_revision(connection: Connection) -> str | None:
    """Return the revision of the database's schema, None if there is none.

    Raises ValueError for a schema from before the first release.
    """
    from alembic.runtime.migration import MigrationContext  # slow to load, and only needed here

    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and _BEFORE_FIRST_RELEASE.fullmatch(revision):
        raise ValueError(
            f"the database has the schema {revision}, which is older than the first release and cannot be upgraded: "
            "use a new database (SECATEUR_DATABASE_URL; if that is not set, a new folder in SECATEUR_HOME), or go "
            "on with the last commit that has migrations/versions/0025_installation.py"
        )
    return revision
