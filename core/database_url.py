"""URLs of databases; a URL may list several hosts: a primary, and replicas that can replace it."""

import re

from sqlalchemy import URL, make_url

_HOST = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(:(?P<port>\d+))?")
_LIST = re.compile(r"(?P<scheme>[^:]+://)(?P<user>[^/?]*@)?(?P<hosts>[^@/?]*,[^@/?]*)(?P<rest>.*)", re.DOTALL)


def parse_database_url(url: str) -> URL:
    """Parse a database's URL; raises ValueError for a wrong list of hosts, and ArgumentError.

    Hosts may be listed in libpq's form, `//HOST:PORT,HOST:PORT/NAME`, or in SQLAlchemy's, `?host=HOST:PORT` for each.
    If there are several hosts, the URL always selects the one that accepts writes.
    """
    if listed := _LIST.fullmatch(url):
        without = make_url(f"{listed['scheme']}{listed['user'] or ''}{listed['rest']}")
        hosts = listed["hosts"].split(",")
    else:
        without = make_url(url)
        named = without.query.get("host", ())
        if isinstance(named, str):
            return without.update_query_dict({"target_session_attrs": "read-write"} if "," in named else {}, True)
        hosts = list(named)
    if not hosts:
        return without
    parts = [_HOST.fullmatch(host) for host in hosts]
    if not all(parts):
        raise ValueError(f"{','.join(hosts)!r} is not a list of hosts")
    several = {
        "host": ",".join(part["name"].strip("[]") for part in parts if part),
        "port": ",".join(part["port"] or "5432" for part in parts if part),
    }
    return without.set(query={"target_session_attrs": "read-write", **without.query, **several})


def libpq_url(url: str) -> str:
    """Return a database's URL in the form that psycopg and PostgreSQL's own programs accept."""
    return parse_database_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
