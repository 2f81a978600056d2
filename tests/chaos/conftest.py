"""A small installation that kept its promises: three jobs that ended, one of them at its second attempt, with the
webhooks they were told by, a model and a text that came as uploads, and clients' journal of it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import httpx
import psycopg
import pytest

from bench.chaos.bodies import MODEL, TEXT, write_model, write_words
from bench.chaos.installation import Installation
from bench.chaos.journal import Journal, read
from bench.chaos.observation import Bucket, Observation, Reader, Violation, observe
from bench.chaos.receiver import Receiver
from bench.chaos.small import Store
from core.database import session_factory, transaction
from core.http.address_policy import AddressPolicy
from core.service.teams.bootstrap import create_team
from core.service.teams.keys import create_key
from core.service.webhooks.delivery_loop import Dispatch
from core.settings import Settings
from secateur import Client
from tests.databases import administrator, fresh_database
from tests.serving import lent_app, served
from tests.worker.supervise import run_once

TEAM = "gardeners"
_SECRET = "a secret for tests"


def broken(found: Iterator[Violation]) -> set[str]:
    """Names of the promises that were."""
    return {violation.promise for violation in found}


@dataclass(frozen=True)
class Installed:
    """An installation under test, and its journal."""

    installation: Installation
    journal: Journal
    done: str
    tried_again: str
    missed: str

    @contextmanager
    def look(self, *noted: dict[str, Any]) -> Iterator[Observation]:
        """What the checker sees of it now, with more entries in the journal where some are given."""
        reader, bucket = Reader(self.installation), Bucket(self.installation)
        try:
            seen = observe(self.installation, self.journal.path, reader, bucket)
            seen.journal.extend({"at": 0.0, **entry} for entry in noted)
            yield seen
        finally:
            reader.close()
            bucket.close()

    @contextmanager
    def changed(self, *statements: str) -> Iterator[None]:
        """The database after these statements, until the end of the context; `DONE`, `TRIED_AGAIN` and `MISSED` in them
        are the jobs' ids.
        """
        names = {"DONE": self.done, "TRIED_AGAIN": self.tried_again, "MISSED": self.missed}
        tables = ("job_events", "job_attempts", "job_reports", "jobs", "teams", "audit", "webhooks")
        with administrator(self.installation.database_url) as connection:
            connection.execute("SET session_replication_role = replica")  # neither foreign keys nor the audit's trigger
            for table in tables:
                connection.execute(f"CREATE TEMP TABLE kept_{table} AS TABLE {table}")
            try:
                for statement in statements:
                    for name, job in names.items():
                        statement = statement.replace(name, f"'{job}'")
                    assert _execute(connection, statement) > 0, "the statement changes nothing"
                yield
            finally:
                for table in tables:
                    _execute(connection, f"DELETE FROM {table}")
                    _execute(connection, f"INSERT INTO {table} SELECT * FROM kept_{table}")


def _execute(connection: psycopg.Connection[Any], statement: str) -> int:
    return connection.execute(statement.encode()).rowcount


@pytest.fixture(scope="package")
def installed(postgres_url: str) -> Iterator[Installed]:
    store = Store()
    with (
        TemporaryDirectory(prefix="secateur-test-") as name,
        fresh_database(postgres_url) as database_url,
        store.running() as endpoint,
        Receiver(Path(name)) as receiver,
    ):
        settings = Settings(
            home=Path(name) / "worker-1",
            database_url=database_url,
            secret_key=_SECRET,
            store_url=f"s3://{store.bucket}",
            store_endpoint=endpoint,
            store_region="us-east-1",
            store_access_key="access",
            store_secret_key="secret",
            presigned_seconds=0,
            retry_delay_seconds=0,
            webhook_allowed_networks=[ip_network("127.0.0.0/8")],
        )
        sessions = session_factory(settings)
        with transaction(sessions) as session:
            team = create_team(session, TEAM)
            key = create_key(session, team, role="admin", name="test", expires_at=None, secret=_SECRET.encode()).key
        with lent_app(settings) as app, served(app) as url:
            installation = Installation(
                folder=Path(name),
                apis=(url, url),
                admin_keys={TEAM: key},
                hooks=receiver.url,
                received=receiver.received,
                store_endpoint=endpoint,
                bucket=store.bucket,
                store_access_key="access",
                store_secret_key="secret",
                database_url=database_url,
            )
            journal = Journal(Path(name) / "journal.jsonl")
            with Client(url, key) as client:
                prepare(client, installation, journal)

                def run(body: dict[str, Any], ends: str | None, *behaviours: dict[str, Any]) -> str:
                    job = submit(url, key, journal, body, ends)
                    for behaviour in behaviours:
                        run_once(settings, sessions, json.dumps(behaviour), Event(), "worker_test")
                    watch(client, journal, job)
                    return job

                body = {"method": "magnitude", "sparsity": 0.5}
                done = run(body, None, {})
                passing = {"fail_in": "verify", "code": "runner_lost", "retryable": True}
                tried_again = run(body, None, passing, {})
                gates = {"max_perplexity_ratio": 1.0}
                missed = run(body | {"gates": gates, "evaluation": {"datasets": [TEXT]}}, "gate_missed", {"ratio": 2.0})
            Dispatch(sessions, settings, AddressPolicy(tuple(settings.webhook_allowed_networks))).run(idle_looks=0)
            yield Installed(installation, journal, done, tried_again, missed)
        sessions.kw["bind"].dispose()


def prepare(client: Client, installation: Installation, journal: Journal) -> None:
    folder = installation.folder / "clients"
    client.upload_model(MODEL, write_model(folder / MODEL, 0))
    client.upload_dataset(TEXT, write_words(folder / f"{TEXT}.txt", 0))
    made = client.create_webhook(f"{installation.hooks}/{TEAM}/all")
    journal.note("endpoint", team=TEAM, id=made.id, path=f"/{TEAM}/all", secret=made.secret, types=[], metadata={})


def submit(url: str, key: str, journal: Journal, body: dict[str, Any], ends: str | None) -> str:
    once = f"key-{sum(1 for _ in read(journal.path))}"
    answer = httpx.post(
        f"{url}/v1/jobs",
        json={"model": MODEL, "metadata": {"submission": once}} | body,
        headers={"Authorization": f"Bearer {key}", "Idempotency-Key": once},
    )
    assert answer.status_code == 201, answer.text
    job = str(answer.json()["id"])
    journal.note("accepted", job=job, team=TEAM, key=once, ends=ends)
    return job


def watch(client: Client, journal: Journal, job: str) -> None:
    numbers = [event.sequence for event in client.events(job)]
    journal.note("watched", job=job, team=TEAM, sequences=numbers, ended=True)
