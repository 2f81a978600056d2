"""Addresses and keys of the installation under test, for clients, the checker and faults."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Installation:
    """Addresses and keys of a running fleet.

    `apis`: base URLs of the API processes. `admin_keys`: an admin's key of each team, by the team's name. `hooks`: base
    URL of the receiver of webhooks, which writes what it was sent into `received`, a line of JSON each: when, id, body.
    `bucket` at `store_endpoint`: the S3 store, not by the faulty way to it, for `store_access_key` and
    `store_secret_key`. `database_url`: read for locks and open transactions alone. `folder`: everything of this run;
    the home of worker N is `folder/worker-N`.
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
