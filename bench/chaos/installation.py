"""Installation under test, as clients, the checker and faults know it, and the journal of what happened to it."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx
import psycopg

from core.database_url import libpq_url

BYSTANDERS: Final = "bystanders"
"""Team that no fault is meant for, and that asks how the service is meanwhile."""
OUTSIDERS: Final = "outsiders"
"""Team that faults from outside are made of: its rows, its hub repositories, its uploads."""


@dataclass(frozen=True)
class Installation:
    """Addresses and keys of a running fleet.

    `apis`: base URLs of the API processes. `admin_keys`: an admin's key of each team, by the team's name. `hooks`: base
    URL of the receiver of webhooks, which writes what it was sent into `received`, a line of JSON each: when, id, body.
    `bucket` at `store_endpoint`: the S3 store, for `store_access_key` and `store_secret_key`. `database_url`: read for
    locks and open transactions, and written to by faults, which make rows that no release would write. `folder`:
    everything of this run; the home of worker N is `folder/worker-N`.
    """

    folder: Path
    apis: tuple[str, ...]
    admin_keys: dict[str, str]
    hooks: str
    received: Path
    store_endpoint: str
    bucket: str
    store_access_key: str
    store_secret_key: str
    database_url: str

    @property
    def teams_at_work(self) -> list[str]:
        """Teams whose clients submit jobs all the time."""
        return sorted(self.admin_keys.keys() - {BYSTANDERS, OUTSIDERS})

    def connect(self) -> "psycopg.Connection[Any]":
        """Return a connection to the database on which every statement is a transaction of its own."""
        return psycopg.connect(libpq_url(self.database_url), autocommit=True, connect_timeout=5)

    def change_rows(self, statement: str, *values: str) -> int:
        """Change rows behind the service's back; return how many."""
        with self.connect() as connection:
            return connection.execute(statement.encode(), values).rowcount

    def http(self, team: str, api: str | None = None, *, seconds: float = 30.0) -> httpx.Client:
        """Return a client of an API process, the last where none is named, that has the key of the team."""
        return httpx.Client(
            base_url=api or self.apis[-1],
            headers={"Authorization": f"Bearer {self.admin_keys[team]}"},
            timeout=seconds,
            follow_redirects=True,
            trust_env=False,
            verify=False,  # all is on loopback, and certificates take long to load
        )

    def request(self, team: str, method: str, path: str, body: Any = None, **where: Any) -> Any:
        """Return the answer to a team's request, made once. Raises httpx.HTTPError where it is none of success."""
        with self.http(team, **where) as client:
            return client.request(method, path, json=body).raise_for_status().json()


class Journal:
    """A file of JSON lines: `at` (seconds since the epoch), `kind`, and what else is noted; any thread writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def note(self, kind: str, **said: Any) -> None:
        line = json.dumps({"at": time.time(), "kind": kind, **said})
        with self._lock, open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a journal, oldest first."""
    with open(path, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def add_endpoint(
    installation: Installation,
    journal: Journal,
    team: str,
    name: str,
    types: Sequence[str] = (),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Add an endpoint at the receiver, of everything where no types are given, and note it in the journal."""
    chosen = {"types": list(types), "metadata": dict(metadata)}
    body = {"url": f"{installation.hooks}/{team}/{name}", **chosen}
    made = installation.request(team, "POST", "/v1/webhooks", body)
    journal.note("endpoint", team=team, id=made["id"], path=f"/{team}/{name}", secret=made["secret"], **chosen)
