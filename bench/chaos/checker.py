"""Checker of a run: the promises, looked at once the last fault is healed and the clients have stopped.

It reads the API as the teams do, the audit trail among it, the bucket, the receiver's file, /proc, the workers' folders
and PostgreSQL's own views of who holds what. It knows nothing of the product's code or tables.
"""

import json
import time
from collections.abc import Collection
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from bench.chaos.installation import Installation
from bench.chaos.journal import read
from bench.chaos.observation import (
    LEASED,
    Bucket,
    NoAnswer,
    Observation,
    Reader,
    Violation,
    observe,
)
from bench.chaos.promises import Promise, lasting, settling
from bench.chaos.promises.artifacts import manifests_are_complete
from bench.chaos.promises.jobs import unended
from bench.chaos.promises.leftovers import processes_left

__all__ = ["Violation", "check", "keep_events", "timeline"]

_ASKING = ("accepted", "retry_answered", "cancel_answered")
_LOOK_SECONDS = 1.0
_AWAY = (NoAnswer, httpx.HTTPError, BotoCoreError, ClientError, psycopg.Error)


def check(
    installation: Installation,
    journal_path: Path,
    *,
    bound_seconds: float,
    expected_pids: Collection[int],
    run_id: str,
) -> list[Violation]:
    """Return what was broken. Jobs have `bound_seconds` from the last fault's end, or the last request if that was
    later, to end; what is to go by itself has as long again from then on.

    `expected_pids` are the processes of the run that go on; whatever else was started with `CHAOS_RUN=run_id` in its
    environment, and descends from none of them, is left over.
    """
    reader, bucket = Reader(installation), Bucket(installation)
    try:
        found = _check(installation, journal_path, reader, bucket, bound_seconds, expected_pids, run_id)
    except _AWAY as error:
        found = [Violation("answers", f"the installation does not answer: {type(error).__name__}: {error}")]
    finally:
        reader.close()
        bucket.close()
    return found


def _check(
    installation: Installation,
    journal: Path,
    reader: Reader,
    bucket: Bucket,
    bound_seconds: float,
    expected_pids: Collection[int],
    run_id: str,
) -> list[Violation]:
    found = list(manifests_are_complete(Observation(installation, reader, bucket, [])))  # before orphans are swept
    _wait_for_ends(reader, sorted(installation.admin_keys), _last(journal) + bound_seconds)
    seen = observe(installation, journal, reader, bucket)
    for promise in (unended, *lasting):
        found += promise(seen)

    deadline = time.time() + bound_seconds
    processes: Promise = partial(processes_left, run_id=run_id, expected=expected_pids)
    for settles in (*settling, processes):
        found += _settled(settles, seen, deadline)
    keep_events(journal, seen, found)
    return found


def _settled(promise: Promise, seen: Observation, deadline: float) -> list[Violation]:
    """Return what a promise finds broken and still does at the deadline. Jobs have ended: only what lies around them
    may change.
    """
    while (found := list(promise(seen))) and time.time() < deadline:
        time.sleep(_LOOK_SECONDS)
    return found


def _wait_for_ends(reader: Reader, teams: list[str], deadline: float) -> None:
    """Wait until no job goes on, and no trigger is due that will make one once the hub is back."""

    def is_due(trigger: dict[str, Any]) -> bool:
        due = trigger["next_fire_at"]
        return due is not None and datetime.fromisoformat(due) <= datetime.now(UTC)

    def is_over() -> bool:
        goes_on = any(
            reader.json(team, "/v1/jobs", status=status, limit=1)["data"]
            for team in teams
            for status in ("queued", *sorted(LEASED))
        )
        return not goes_on and not any(is_due(each) for team in teams for each in reader.all(team, "/v1/triggers"))

    while not is_over() and time.time() < deadline:
        time.sleep(_LOOK_SECONDS)


def _last(journal: Path) -> float:
    """Return when the last fault was healed or the last request answered, whichever came later."""
    times = [
        float(entry["at"])
        for entry in read(journal)
        if entry["kind"] in _ASKING or (entry["kind"] == "fault" and entry["phase"] == "healed")
    ]
    return max(times, default=time.time())


def _seen_file(journal: Path) -> Path:
    return journal.with_name(f"{journal.stem}.events.json")


def keep_events(journal: Path, seen: Observation, found: list[Violation]) -> None:
    """Write down the events of the jobs that a violation is about, for their timelines."""
    jobs = {each.job for each in found} & seen.jobs.keys()
    _seen_file(journal).write_text(json.dumps({job: seen.jobs[job].events for job in jobs if job}))


def timeline(job: str, journal: Path) -> str:
    """Return the events of a job that a violation is about, and what clients were told of it, among the faults."""
    events = json.loads(_seen_file(journal).read_text()).get(job, []) if _seen_file(journal).exists() else []
    lines = [(_seconds(event["created_at"]), _told(event)) for event in events]
    for entry in read(journal):
        if entry["kind"] == "fault":
            lines.append((entry["at"], _fault(entry)))
        elif entry.get("job") == job:
            said = {name: value for name, value in entry.items() if name not in ("at", "kind", "job")}
            lines.append((entry["at"], f"  client  {entry['kind']} {said}"))
    lines.sort(key=lambda line: line[0])
    began = lines[0][0] if lines else 0.0
    return "\n".join([f"timeline of {job}", *(f"{at - began:9.2f} s  {text}" for at, text in lines)])


def _told(event: dict[str, Any]) -> str:
    return f"  {event['sequence']:>4}  attempt {event['attempt']}  {event['type']} {json.dumps(event['data'])[:160]}"


def _fault(entry: dict[str, Any]) -> str:
    where = f" in {entry['stage']}" if entry.get("stage") else ""
    return f"FAULT {entry['number']} {entry['phase']}: {entry['name']} of {entry['target']}{where}"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
