"""URLs of databases with one host or several, as SQLAlchemy's driver and libpq itself understand them."""

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine

from core.database_url import libpq_url, parse_database_url

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
