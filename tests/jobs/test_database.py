from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.orm import Session, sessionmaker

from core.database import Base, migrate, transaction
from core.database_url import libpq_url, parse_database_url
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


SEVERAL = {"host": "one,two", "port": "5432,6543", "target_session_attrs": "read-write", "user": "u", "dbname": "d"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:p%40%2F@one:5432,two:6543/d",
        "postgresql+psycopg://u:p%40%2F@one,two:6543/d?target_session_attrs=read-write",
        "postgresql+psycopg://u:p%40%2F@/d?host=one:5432&host=two:6543",
        "postgresql+psycopg://u:p%40%2F@/d?host=one,two&port=5432,6543",
    ],
)
def test_several_hosts_are_the_same_to_the_driver_and_to_libpq(url: str) -> None:
    driver = create_engine(parse_database_url(url)).dialect.create_connect_args(parse_database_url(url))[1]
    driver.pop("context")
    assert driver == SEVERAL | {"password": "p@/"}
    assert conninfo_to_dict(libpq_url(url)) == SEVERAL | {"password": "p@/"}


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="'one:x,two' is not a list of hosts"):
        parse_database_url("postgresql+psycopg://u@one:x,two/d")
