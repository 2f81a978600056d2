"""Installation under test, as clients, the checker and faults know it, and the journal of what happened to it."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from core.database import session_factory, transaction
from core.database_url import libpq_url
from core.service.teams.bootstrap import create_team
from core.service.teams.keys import create_key
from core.settings import Settings
from tests.webhooks.receiver import Receiver

OUTSIDERS: Final = "outsiders"
"""Team that faults from outside are made of: its rows and its uploads. Its clients do nothing else."""
NOBODYS_QUEUE: Final = "nobodys"
"""A queue without workers: jobs in it stay as they are."""
ACCESS_KEY, SECRET_KEY = "access", "secret"


class Journal:
    """A file of JSON lines: `at` (seconds since the epoch), `kind`, and what else is noted; any thread writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def note(self, kind: str, **said: Any) -> None:
        line = json.dumps({"at": time.time(), "kind": kind, **said})
        with self._lock, open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the entries, oldest first."""
        with open(self.path, encoding="utf-8") as lines:
            yield from map(json.loads, lines)


@dataclass(frozen=True)
class Installation:
    """Addresses and keys of a running fleet.

    `apis`: base URLs of the API processes. `admin_keys`: an admin's key of each team, by the team's name. `bucket` at
    `store_endpoint`: the S3 store, for `ACCESS_KEY` and `SECRET_KEY`. `database_url`: read for locks and open
    transactions, and written to by faults, which make rows that no release would write. `folder`: everything of this
    run; the home of worker N is `folder/worker-N`.
    """

    folder: Path
    journal: Journal
    apis: tuple[str, ...]
    admin_keys: dict[str, str]
    hooks: Receiver
    store_endpoint: str
    bucket: str
    database_url: str

    def connect(self) -> "psycopg.Connection[Any]":
        """Return a connection to the database on which every statement is a transaction of its own."""
        return psycopg.connect(libpq_url(self.database_url), autocommit=True, connect_timeout=5)

    def http(self, team: str, api: str | None = None, *, seconds: float = 30.0) -> httpx.Client:
        """Return a client of an API process, the last where none is named, that has the key of the team."""
        return httpx.Client(
            base_url=api or self.apis[-1],
            headers={"Authorization": f"Bearer {self.admin_keys[team]}"},
            timeout=seconds,
            trust_env=False,
            verify=False,  # all is on loopback, and certificates take long to load
        )

    def request(self, team: str, method: str, path: str, body: Any = None) -> Any:
        """Return the answer to a team's request, made once. Raises httpx.HTTPError where it is none of success."""
        with self.http(team) as client:
            return client.request(method, path, json=body).raise_for_status().json()


def make_keys(settings: Settings, teams: tuple[str, ...], secret: str) -> dict[str, str]:
    """Make teams; return an admin's key of each."""
    sessions = session_factory(settings)
    keys = {}
    with transaction(sessions) as session:
        for name in teams:
            team = create_team(session, name)
            made = create_key(session, team, role="admin", name="chaos", expires_at=None, secret=secret.encode())
            keys[name] = made.key
    sessions.kw["bind"].dispose()
    return keys


def add_endpoint(installation: Installation, team: str, name: str, **chosen: Any) -> None:
    """Add an endpoint at the receiver, of the `types` and `metadata` that are chosen, and note it in the journal."""
    path = f"/ok/{team}/{name}"
    made = installation.request(team, "POST", "/v1/webhooks", {"url": installation.hooks.url(path), **chosen})
    installation.journal.note("endpoint", team=team, path=path, secret=made["secret"], **chosen)
