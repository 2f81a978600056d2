"""Installation under test, its journal, and the state that a run left, as its users see it.

State is read over REST with each team's key, from the bucket and the receiver. Nothing here or in the promises is the
product's code but for teams and keys: what is looked at must not decide what it looks like.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Final

import boto3
import httpx
import psycopg
from botocore.config import Config

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


ENDED = frozenset({"succeeded", "failed", "cancelled"})
LEASED = frozenset({"running", "cancelling"})
_TRIES = 10
_PAGE = 200


class NoAnswer(Exception):
    """An API process that should be well did not answer, or answered with a failure of its own."""


@dataclass(frozen=True)
class SeenJob:
    """A job with all that the API tells of it."""

    team: str
    job: dict[str, Any]
    events: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    files: list[dict[str, Any]]
    report: dict[str, Any] | None

    @property
    def id(self) -> str:
        return str(self.job["id"])

    @property
    def status(self) -> str:
        return str(self.job["status"])

    @cached_property
    def statuses(self) -> list[dict[str, Any]]:
        """Events that change the job's status, in order."""
        return [event for event in self.events if event["type"] == "status"]

    @cached_property
    def kept_attempt(self) -> int | None:
        """The attempt whose artifact the job has by its events: the last that succeeded, or missed only a gate."""
        kept = [
            int(event["attempt"])
            for event in self.statuses
            if event["data"]["status"] == "succeeded" or (event["data"].get("error") or {}).get("code") == "gate_missed"
        ]
        return kept[-1] if kept else None

    def key(self, file: dict[str, Any]) -> str:
        """Return the place in the store of a file that is listed."""
        return f"{self.id}/attempt-{self.kept_attempt}/{file['path']}"


class Observation:
    """A run's journal and an installation, looked at now. `expected_pids` are the processes of the run that go on;
    whatever else was started with `CHAOS_RUN=run_id` in its environment, and descends from none of them, is left over.
    """

    def __init__(
        self,
        installation: Installation,
        journal: list[dict[str, Any]],
        run_id: str = "",
        expected_pids: Collection[int] = (),
    ) -> None:
        self.installation = installation
        self.journal = journal
        self.run_id = run_id
        self.expected_pids = expected_pids
        self.teams = sorted(installation.admin_keys)
        self.jobs: dict[str, SeenJob] = {}
        self.s3 = boto3.client(
            "s3",
            endpoint_url=installation.store_endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        self._apis = itertools.cycle(installation.apis)

    def look(self) -> None:
        """Read all there is of every job."""
        for team in self.teams:
            for job in self.all(team, "/v1/jobs"):
                path = f"/v1/jobs/{job['id']}"
                report = self.get(team, f"{path}/report")
                self.jobs[job["id"]] = SeenJob(
                    team,
                    job,
                    self.all(team, f"{path}/events"),
                    self.all(team, f"{path}/attempts")[::-1],
                    self.json(team, f"{path}/artifacts")["data"],
                    report.json() if report.status_code == 200 else None,
                )

    def noted(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.journal if entry["kind"] == kind]

    def get(self, team: str, path: str, **params: str | int) -> httpx.Response:
        """Return a team's answer, from one API process after another, that is none of 500 and above; raises NoAnswer
        where there is none after many tries.
        """
        said = ""
        for _ in range(_TRIES):
            try:
                with self.installation.http(team, next(self._apis)) as client:
                    answer = client.get(path, params=params)
            except httpx.TransportError as error:
                said = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
                said = f"{answer.status_code} {answer.text[:300]}"
            time.sleep(0.5)
        raise NoAnswer(f"GET {path} as {team}: {said}")

    def json(self, team: str, path: str, **params: str | int) -> Any:
        answer = self.get(team, path, **params)
        if answer.status_code != 200:
            raise NoAnswer(f"GET {path} as {team}: {answer.status_code} {answer.text[:300]}")
        return answer.json()

    def all(self, team: str, path: str, **params: str | int) -> list[dict[str, Any]]:
        """Return every item of a list, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.json(team, path, limit=_PAGE, **params)
            found += page["data"]
            if not page["has_more"]:
                return found
            params = params | {"after": page["next_after"]}

    def objects(self) -> dict[str, int]:
        """Return the size of every object of the store, by its key."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.installation.bucket)
        return {item["Key"]: int(item["Size"]) for page in pages for item in page.get("Contents", [])}

    def content(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.installation.bucket, Key=key)["Body"].read())


Promise = Callable[[Observation], Iterator[str]]
"""A promise of the service, in words the docstring of its function: it yields where an installation broke it."""


PROMISES: list[Promise] = []
"""All promises. What one of them misses may still be on its way, and counts once the time given to it is over."""


def promise(look: Promise) -> Promise:
    """Make a promise of a function which looks at all there is."""
    PROMISES.append(look)
    return look


def of_jobs(look: Callable[[SeenJob], Iterator[str]]) -> Promise:
    """Make a promise of a function which looks at one job."""

    @wraps(look)
    def each(seen: Observation) -> Iterator[str]:
        yield from (f"{found.id}: {text}" for found in seen.jobs.values() for text in look(found))

    return promise(each)
