"""State that a run left, as its users see it: read over REST with each team's key, from the bucket and the receiver.

Nothing here or in the promises is the product's code: what is looked at must not decide what it looks like.
"""

import itertools
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any

import boto3
import httpx
from botocore.config import Config

from bench.chaos.installation import ACCESS_KEY, SECRET_KEY, Installation

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
"""What they find may still be on its way: it counts once the time that is given to it is over."""


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
