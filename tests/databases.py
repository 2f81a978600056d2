"""Databases for tests: migrated once, handed from test to test, emptied and under a new name each time.

Emptying takes a tenth of what making and dropping one takes. The new name keeps out whatever an earlier test left
running: to that, its database is gone.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copytree
from typing import Any

import psycopg
from psycopg import errors, sql
from sqlalchemy import make_url

from core.database import MIGRATIONS, migrate, new_id
from core.database_url import libpq_url
from core.settings import Settings

_TEMPLATE = "migrated"
_TOO_LARGE = 1.5
"""Times the template's size: a database that grew so is dropped, for its dead rows and statistics slow later tests."""
_EMPTY = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
            AND pg_relation_size(oid) > 0
    LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
    PERFORM setval(seqrelid::regclass, seqstart, false) FROM pg_sequence;
END
$$
"""
"""A table whose file is empty never had a row. To plan a `DELETE` of it would take as long as of any other, and most
are so."""

_used: dict[str, list[str]] = defaultdict(list)
"""Names of databases that no test holds any more, by the server's URL."""
_administrators: dict[str, psycopg.Connection[Any]] = {}
"""Connections that stay open while databases are lent, by the server's URL: one more for each takes as long as all
else that is done to lend it."""


def make_template(postgres_url: str) -> None:
    with administrator(postgres_url) as connection:
        connection.execute(f"CREATE DATABASE {_TEMPLATE}")
    migrate(Settings(database_url=_on_database(postgres_url, _TEMPLATE)))


@contextmanager
def template(postgres_url: str) -> Iterator[None]:
    """Make the template, and stay connected to the server inside the context."""
    make_template(postgres_url)
    with administrator(postgres_url) as connection:
        _administrators[postgres_url] = connection
        yield
        del _administrators[postgres_url]


@contextmanager
def fresh_database(postgres_url: str) -> Iterator[str]:
    """Lend the URL of a migrated, empty database. Its schema has to stay as it is."""
    name = new_id("test")
    with _administering(postgres_url) as connection:
        if not _reuse(connection, postgres_url, name):
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    yield _on_database(postgres_url, name)
    _used[postgres_url].append(name)


@contextmanager
def _administering(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield the connection that stays open, or one of its own."""
    if postgres_url in _administrators:
        yield _administrators[postgres_url]
        return
    with administrator(postgres_url) as connection:
        yield connection


def _reuse(connection: psycopg.Connection[Any], postgres_url: str, name: str) -> bool:
    """Empty a used database and give it this name; False where there is none."""
    while _used[postgres_url]:
        old = _used[postgres_url].pop()
        if _is_too_large(connection, old):
            connection.execute(f"DROP DATABASE {old} WITH (FORCE)")
            continue
        _rename(connection, old, name)
        with administrator(_on_database(postgres_url, name)) as inside:
            inside.execute("SET session_replication_role = replica")  # neither foreign keys nor the audit's trigger
            inside.execute(_EMPTY)
        return True
    return False


def _is_too_large(connection: psycopg.Connection[Any], name: str) -> bool:
    [too_large] = connection.execute(
        "SELECT pg_database_size(%s::name) > %s * pg_database_size(%s::name)", (name, _TOO_LARGE, _TEMPLATE)
    ).fetchone() or (False,)
    return bool(too_large)


def _rename(connection: psycopg.Connection[Any], old: str, new: str) -> None:
    """End every session of the database and name it anew. Asked for while sessions end, PostgreSQL would look again
    every 100 ms only.
    """
    sessions = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}").format(old)
    while True:
        while connection.execute(sessions).fetchall():
            time.sleep(0.002)
        with suppress(errors.ObjectInUse):
            connection.execute(f"ALTER DATABASE {old} RENAME TO {new}")
            return


def next_release(folder: Path, upgrade: str) -> Path:
    """Return a folder with this release's migrations and one more, `next`, whose function is given."""
    copied = copytree(MIGRATIONS, folder / "migrations")
    revision = 'revision = "next"\ndown_revision = "r0002"\n'
    (copied / "versions" / "next.py").write_text(f"from alembic import op\n{revision}{upgrade}")
    return copied


def administrator(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(libpq_url(url), autocommit=True)


def _on_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)
