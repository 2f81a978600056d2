"""Addresses and keys of the installation under test, for clients, the checker and faults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
    `bucket` at `store_endpoint`: the S3 store, not by the faulty way to it, for `store_access_key` and
    `store_secret_key`; `faulty_store_endpoint` is the way that services know. `database_url`: read for locks and open
    transactions, and written to by faults, which make rows that no release would write. `folder`: everything of this
    run; the home of worker N is `folder/worker-N`.
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
    faulty_store_endpoint: str = ""

    @property
    def teams_at_work(self) -> list[str]:
        """Teams whose clients submit jobs all the time."""
        return sorted(self.admin_keys.keys() - {BYSTANDERS, OUTSIDERS})


def change_rows(installation: Installation, statement: str, *values: str) -> int:
    """Change rows behind the service's back; return how many."""
    with psycopg.connect(libpq_url(installation.database_url)) as connection:
        return connection.execute(statement.encode(), values).rowcount
