"""Migrations that are cut off: what was done stays of use, and the next one that migrates goes on."""

import threading
import time
from collections.abc import Iterator

import alembic.command
import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core.database import MIGRATIONS, create_engine_from, migrate, migrations, new_id
from core.database_url import libpq_url
from core.settings import Settings
from tests.databases import administrator

BESIDE_OTHERS = sorted(
    path.name[:4] for path in (MIGRATIONS / "versions").glob("*.py") if "autocommit_block" in path.read_text()
)
"""Migrations that build an index concurrently, outside of any transaction: their earlier statements are committed."""
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


def upgrade(settings: Settings, revision: str) -> None:
    engine = create_engine_from(settings, "migration")
    try:
        with engine.connect() as connection:
            config = migrations()
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, revision)
            connection.commit()
    finally:
        engine.dispose()


def require_whole(settings: Settings) -> None:
    """Require the schema that the code declares."""
    engine = create_engine_from(settings)
    try:
        with engine.connect() as connection:
            config = migrations()
            config.attributes["connection"] = connection
            alembic.command.check(config)
            assert connection.exec_driver_sql("SELECT count(*) FROM pg_index WHERE NOT indisvalid").scalar() == 0
    finally:
        engine.dispose()


@pytest.mark.parametrize("revision", BESIDE_OTHERS)
def test_a_migrator_that_is_killed_while_it_builds_an_index_is_followed_by_one_that_goes_on(
    settings: Settings, revision: str
) -> None:
    upgrade(settings, f"{int(revision) - 1:04}")
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
            deadline = time.monotonic() + 30
            while not (found := killer.execute(MIGRATOR).fetchall()):
                assert time.monotonic() < deadline and migrator.is_alive(), errors
                time.sleep(0.02)
            killer.execute("SELECT pg_terminate_backend(%s)", found[0])
        migrator.join(30)
    assert len(errors) == 1
    migrate(settings)
    require_whole(settings)


def test_a_migration_that_waits_for_a_lock_gives_up_changes_nothing_and_comes_again(settings: Settings) -> None:
    upgrade(settings, "0021")
    with psycopg.connect(libpq_url(settings.database_url or "")) as other:
        other.execute("LOCK TABLE models IN ACCESS SHARE MODE")
        with pytest.raises(DBAPIError, match="lock timeout"):
            migrate(settings)
        [version] = other.execute("SELECT version_num FROM alembic_version").fetchone() or ()
        assert version == "0021"
    migrate(settings)
    require_whole(settings)
