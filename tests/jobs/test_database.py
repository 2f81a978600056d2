from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.orm import Session, sessionmaker

from core.database import Base, migrate, transaction
from core.service.teams.bootstrap import create_team
from core.service.teams.tables import TeamRow
from core.settings import Settings
from tests.databases import administrator


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[Settings]:
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE empty"))
        url = make_url(postgres_url).set(database="empty")
        yield Settings(database_url=url.render_as_string(hide_password=False))
        connection.execute(text("DROP DATABASE empty WITH (FORCE)"))
    engine.dispose()


def test_processes_that_start_together_migrate_once(empty_database: Settings) -> None:
    with ThreadPoolExecutor(2) as pool:  # alembic's context is per process: the second waits for the lock
        list(pool.map(migrate, [empty_database] * 2))
    migrate(empty_database)
    engine = create_engine(empty_database.database_url or "")
    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
    engine.dispose()


def test_a_transaction_commits_once_at_its_end_or_not_at_all(sessions: sessionmaker[Session]) -> None:
    def fails() -> None:
        with transaction(sessions) as session:
            create_team(session, "never")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with transaction(sessions) as session:
        create_team(session, "always")
        with transaction(sessions) as other:
            assert other.query(TeamRow).count() == 0
    with transaction(sessions) as session:
        assert [team.name for team in session.query(TeamRow)] == ["always"]


def test_a_connection_that_the_server_has_ended_costs_nobody_an_error(
    sessions: sessionmaker[Session], database_url: str
) -> None:
    own = text("SELECT pg_backend_pid()")
    with transaction(sessions) as session:
        ended = session.scalar(own)
    with administrator(database_url) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", [ended])
    with transaction(sessions) as session:
        assert session.scalar(own) != ended
