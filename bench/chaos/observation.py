"""State that a run left, as its users see it: read over REST with each team's key, from the bucket and the receiver.

Nothing here or in `promises` is the product's code: what is looked at must not decide what it looks like.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

import boto3
import httpx
from botocore.config import Config

from bench.chaos.installation import Installation, read

ENDED = frozenset({"succeeded", "failed", "cancelled"})
LEASED = frozenset({"running", "cancelling"})
_TRIES = 10
_PAGE = 200


@dataclass(frozen=True)
class Violation:
    """A promise that was broken: its short name, how, and the job it is about, if any."""

    promise: str
    text: str
    job: str | None = None


class NoAnswer(Exception):
    """An API process that should be well did not answer, or answered with a failure of its own."""


class Reader:
    """GET, as a team, from one API process after another."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._apis = itertools.cycle(installation.apis)

    def get(self, team: str, path: str, **params: str | int) -> httpx.Response:
        """Return an answer that is none of 500 and above; raises NoAnswer where there is none after many tries."""
        said = ""
        for _ in range(_TRIES):
            try:
                with self._installation.http(team, next(self._apis)) as client:
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


class Bucket:
    """The store's objects, read directly."""

    def __init__(self, installation: Installation) -> None:
        self.name = installation.bucket
        self.client = boto3.client(
            "s3",
            endpoint_url=installation.store_endpoint,
            aws_access_key_id=installation.store_access_key,
            aws_secret_access_key=installation.store_secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def close(self) -> None:
        self.client.close()

    def objects(self) -> dict[str, int]:
        """Return the size of every object, by its key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {item["Key"]: int(item["Size"]) for page in pages for item in page.get("Contents", [])}

    def content(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def unfinished(self) -> list[str]:
        """Return the keys of uploads in parts that were neither completed nor given up."""
        answer = self.client.list_multipart_uploads(Bucket=self.name)
        return [str(each["Key"]) for each in answer.get("Uploads", [])]


@dataclass(frozen=True)
class Observation:
    """A run's journal and an installation, looked at now.

    `expected_pids` are the processes of the run that go on; whatever else was started with `CHAOS_RUN=run_id` in its
    environment, and descends from none of them, is left over.
    """

    installation: Installation
    reader: Reader
    bucket: Bucket
    journal: list[dict[str, Any]]
    run_id: str = ""
    expected_pids: frozenset[int] = frozenset()
    jobs: dict[str, SeenJob] = field(default_factory=dict)

    @property
    def teams(self) -> list[str]:
        return sorted(self.installation.admin_keys)

    def noted(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.journal if entry["kind"] == kind]

    def received(self) -> Iterator[dict[str, Any]]:
        """Yield what the receiver of webhooks was sent."""
        yield from read(self.installation.received)

    def look(self) -> None:
        """Read all there is of every job."""
        for team in self.teams:
            for job in self.reader.all(team, "/v1/jobs"):
                self.jobs[job["id"]] = _see(self.reader, team, job)


def _see(reader: Reader, team: str, job: dict[str, Any]) -> SeenJob:
    path = f"/v1/jobs/{quote(job['id'])}"
    report = reader.get(team, f"{path}/report")
    return SeenJob(
        team,
        job,
        reader.all(team, f"{path}/events"),
        reader.all(team, f"{path}/attempts")[::-1],
        reader.json(team, f"{path}/artifacts")["data"],
        report.json() if report.status_code == 200 else None,
    )
