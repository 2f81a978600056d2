"""The first schema, and migrations that are cut off: the next one that migrates goes on."""

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core import database
from core.database import has_schema, migrate, new_id
from core.database_url import libpq_url
from core.settings import Settings
from tests.databases import administrator, next_release
from tests.worker.conftest import eventually
from worker.embedded.instance import open_instance
from worker.failures import CommandFailed

BUILDS_AN_INDEX = """
def upgrade():
    with op.get_context().autocommit_block():
        op.drop_index("ix_jobs_next", table_name="jobs", if_exists=True, postgresql_concurrently=True)
        op.create_index("ix_jobs_next", "jobs", ["request_id"], postgresql_concurrently=True)
"""
ADDS_A_COLUMN = """
def upgrade():
    op.execute("ALTER TABLE teams ADD COLUMN next integer")
    op.execute("ALTER TABLE models ADD COLUMN next integer")
"""
MIGRATOR = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'
"""


@pytest.fixture
def settings(settings: Settings, postgres_url: str) -> Iterator[Settings]:
    """Return the URL of an empty database, without a schema."""
    name = new_id("test")
    with administrator(postgres_url) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
        yield settings.model_copy(update={"database_url": url, "database_migration_lock_seconds": 1})
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def revision_of(settings: Settings) -> str:
    with psycopg.connect(libpq_url(settings.database_url or "")) as connection:
        [version] = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ()
    return str(version)


def test_a_schema_that_is_older_or_lacks_something_is_refused_with_what_to_do(settings: Settings) -> None:
    migrate(settings)
    with psycopg.connect(libpq_url(settings.database_url or "")) as connection:
        connection.execute("ALTER TABLE datasets DROP COLUMN left_out")
        connection.execute("DROP TABLE questions")
    with pytest.raises(CommandFailed, match=r"datasets\.left_out, nor 8 others"), open_instance(settings):
        raise AssertionError("a server would start")
    with psycopg.connect(libpq_url(settings.database_url or "")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0017'")
    for look in (migrate, has_schema):
        with pytest.raises(ValueError, match=r"schema 0017, which is older than the first release.* a new database"):
            look(settings)


def test_a_migrator_that_is_killed_while_it_builds_an_index_is_followed_by_one_that_goes_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(settings)
    monkeypatch.setattr(database, "MIGRATIONS", next_release(tmp_path, BUILDS_AN_INDEX))
    errors: list[Exception] = []

    def run() -> None:
        try:
            migrate(settings)
        except SQLAlchemyError as error:
            errors.append(error)

    migrator = threading.Thread(target=run)
    with psycopg.connect(libpq_url(settings.database_url or "")) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("SELECT 1")  # of a transaction that an index waits for, and no lock does
        migrator.start()
        with psycopg.connect(libpq_url(settings.database_url or ""), autocommit=True) as killer:
            found = eventually(lambda: killer.execute(MIGRATOR).fetchall())
            killer.execute("SELECT pg_terminate_backend(%s)", found[0])
        migrator.join(120)
    assert len(errors) == 1
    migrate(settings)
    assert revision_of(settings) == "next"
    with psycopg.connect(libpq_url(settings.database_url or "")) as connection:
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_jobs_next'::regclass"
        assert connection.execute(valid).fetchall() == [(True,)]


def test_a_migration_that_waits_for_a_lock_gives_up_changes_nothing_and_comes_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(settings)
    monkeypatch.setattr(database, "MIGRATIONS", next_release(tmp_path, ADDS_A_COLUMN))
    with psycopg.connect(libpq_url(settings.database_url or "")) as other:
        other.execute("LOCK TABLE models IN ACCESS SHARE MODE")
        with pytest.raises(DBAPIError, match="lock timeout"):
            migrate(settings)
        assert revision_of(settings) == "r0002"
        columns = "SELECT 1 FROM information_schema.columns WHERE column_name = 'next'"
        assert other.execute(columns).fetchall() == []
    migrate(settings)
    assert revision_of(settings) == "next"
