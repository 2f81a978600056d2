"""A small installation that kept its promises: three jobs that ended, one of them at its second attempt, with the
webhooks they were told by, a model and a text that came as uploads, and clients' journal of it.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import pytest

from bench.chaos.clients import HALF, MODEL, TEXT
from bench.chaos.installation import ACCESS_KEY, SECRET_KEY, Installation, Journal, Observation, add_endpoint, make_keys
from core.database import session_factory
from core.http.address_policy import AddressPolicy
from core.service.webhooks.delivery_loop import Dispatch
from core.settings import Settings
from core.storage import open_store
from core.storage.s3 import S3Store
from secateur import Client
from tests.databases import administrator, fresh_database
from tests.runner.models import write_model, write_words
from tests.serving import lent_app, served
from tests.webhooks.receiver import receiving
from tests.worker.supervise import run_once

TEAM = "gardeners"
_SECRET = "a secret for tests"
_TABLES = ("job_events", "job_attempts", "job_reports", "jobs", "teams", "audit", "webhooks")


@dataclass(frozen=True)
class Installed:
    """An installation under test. Clients were told what is `noted` besides."""

    installation: Installation
    done: str
    tried_again: str
    missed: str
    noted: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def look(self) -> Iterator[Observation]:
        """Return the state that the checker sees now."""
        entries = [*self.installation.journal.read(), *self.noted]
        seen = Observation(self.installation, entries)
        with closing(seen.s3):
            seen.look()
            yield seen

    @contextmanager
    def changed(self, statement: str) -> Iterator[None]:
        """The database after this statement, until the end of the context; `DONE`, `TRIED_AGAIN` and `MISSED` in it are
        the jobs' ids.
        """
        names = {"DONE": self.done, "TRIED_AGAIN": self.tried_again, "MISSED": self.missed}
        for name, job in names.items():
            statement = statement.replace(name, f"'{job}'")
        with administrator(self.installation.database_url) as connection:
            connection.execute("SET session_replication_role = replica")  # neither foreign keys nor the audit's trigger
            for table in _TABLES:
                connection.execute(f"CREATE TEMP TABLE kept_{table} AS TABLE {table}".encode())
            try:
                assert connection.execute(statement.encode()).rowcount > 0, "the statement changes nothing"
                yield
            finally:
                for table in _TABLES:
                    connection.execute(f"DELETE FROM {table}".encode())
                    connection.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}".encode())


@contextmanager
def _bucket() -> Iterator[dict[str, Any]]:
    """Settings of a new bucket."""
    from moto.server import ThreadedMotoServer  # slow to import

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield {
        "store_url": f"s3://secateur-{secrets.token_hex(4)}",  # all servers of a process share what is stored
        "store_endpoint": f"http://127.0.0.1:{server.get_host_and_port()[1]}",
        "store_region": "us-east-1",
        "store_access_key": ACCESS_KEY,
        "store_secret_key": SECRET_KEY,
    }
    server.stop()


@pytest.fixture(scope="package")
def installed(postgres_url: str) -> Iterator[Installed]:
    with (
        TemporaryDirectory(prefix="secateur-test-") as name,
        fresh_database(postgres_url) as database_url,
        _bucket() as bucket,
        receiving() as hooks,
    ):
        settings = Settings(
            home=Path(name) / "worker-1",
            database_url=database_url,
            secret_key=_SECRET,
            presigned_seconds=0,
            retry_delay_seconds=0,
            webhook_allowed_networks=[ip_network("127.0.0.0/8")],
            **bucket,
        )
        store = open_store(settings)
        assert isinstance(store, S3Store)
        store.make_bucket()
        sessions = session_factory(settings)
        with lent_app(settings) as app, served(app) as url:
            installation = Installation(
                folder=Path(name),
                journal=Journal(Path(name) / "journal.jsonl"),
                apis=(url, url),
                admin_keys=make_keys(settings, (TEAM,), _SECRET),
                hooks=hooks,
                store_endpoint=bucket["store_endpoint"],
                bucket=bucket["store_url"].removeprefix("s3://"),
                database_url=database_url,
            )
            note = installation.journal.note
            add_endpoint(installation, TEAM, "all")
            with Client(url, installation.admin_keys[TEAM]) as client:
                client.upload_model(MODEL, write_model(installation.folder / MODEL, layers=2))
                client.upload_dataset(TEXT, write_words(installation.folder / f"{TEXT}.txt"))

                def run(key: str, ends: str | None, *behaviours: dict[str, Any], **body: Any) -> str:
                    body |= HALF | {"model": MODEL, "metadata": {"submission": key}}
                    job = client.submit(idempotency_key=key, **body).id
                    note("accepted", job=job, team=TEAM, key=key, ends=ends)
                    for behaviour in behaviours:
                        run_once(settings, sessions, json.dumps(behaviour), Event(), "worker_test")
                    numbers = [event.sequence for event in client.events(job)]
                    note("watched", job=job, team=TEAM, sequences=numbers, ended=True)
                    return job

                done = run("key-1", None, {})
                lost = {"fail_in": "verify", "code": "runner_lost", "retryable": True}
                tried_again = run("key-2", None, lost, {})
                gates = {"max_perplexity_ratio": 1.0}
                missed = run("key-3", "gate_missed", {"ratio": 2.0}, gates=gates, evaluation={"datasets": [TEXT]})
            Dispatch(sessions, settings, AddressPolicy(tuple(settings.webhook_allowed_networks))).run(idle_looks=0)
            yield Installed(installation, done, tried_again, missed)
        sessions.kw["bind"].dispose()
