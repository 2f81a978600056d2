"""Checker of a run: the promises, looked at once the last fault is healed and the clients have stopped.

It reads the API as the teams do, the audit trail among it, the bucket, the receiver's file, /proc, the workers' folders
and PostgreSQL's own views of who holds what. It knows nothing of the product's code or tables.
"""

import json
import time
from collections.abc import Collection
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from bench.chaos.installation import Installation, read
from bench.chaos.observation import LEASED, Bucket, NoAnswer, Observation, Reader, Violation
from bench.chaos.promises import Promise, promises

_ASKING = ("accepted", "retry_answered", "cancel_answered")
_LOOK_SECONDS = 1.0
_AWAY = (NoAnswer, httpx.HTTPError, BotoCoreError, ClientError, psycopg.Error)


def check(
    installation: Installation,
    journal: Path,
    *,
    bound_seconds: float,
    expected_pids: Collection[int],
    run_id: str,
) -> list[Violation]:
    """Return what was broken. Jobs have `bound_seconds` from the last fault's end, or the last request if that was
    later, to end; what is to go by itself has as long again from then on.
    """
    with closing(Bucket(installation)) as bucket:
        entries = list(read(journal))
        seen = Observation(installation, Reader(installation), bucket, entries, run_id, frozenset(expected_pids))
        try:
            found = [each for promise in promises("first") for each in promise(seen)]  # before orphans are swept
            _wait_for_ends(seen, _last(entries) + bound_seconds)
            seen.look()
            found += [each for promise in promises("lasting") for each in promise(seen)]
            deadline = time.time() + bound_seconds
            found += [each for promise in promises("settling") for each in _settled(promise, seen, deadline)]
        except _AWAY as error:
            return [Violation("answers", f"the installation does not answer: {type(error).__name__}: {error}")]
        keep_events(journal, seen, found)
        return found


def _settled(promise: Promise, seen: Observation, deadline: float) -> list[Violation]:
    """Return what a promise finds broken and still does at the deadline. Jobs have ended: only what lies around them
    may change.
    """
    while (found := list(promise(seen))) and time.time() < deadline:
        time.sleep(_LOOK_SECONDS)
    return found


def _wait_for_ends(seen: Observation, deadline: float) -> None:
    """Wait until no job goes on, and no trigger is due that will make one once the hub is back."""

    def is_due(trigger: dict[str, Any]) -> bool:
        due = trigger["next_fire_at"]
        return due is not None and datetime.fromisoformat(due) <= datetime.now(UTC)

    def is_over() -> bool:
        goes_on = any(
            seen.reader.json(team, "/v1/jobs", status=status, limit=1)["data"]
            for team in seen.teams
            for status in ("queued", *sorted(LEASED))
        )
        triggers = (each for team in seen.teams for each in seen.reader.all(team, "/v1/triggers"))
        return not goes_on and not any(map(is_due, triggers))

    while not is_over() and time.time() < deadline:
        time.sleep(_LOOK_SECONDS)


def _last(journal: list[dict[str, Any]]) -> float:
    """Return when the last fault was healed or the last request answered, whichever came later."""
    times = [
        float(entry["at"])
        for entry in journal
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
    file = _seen_file(journal)
    lines = [
        (
            datetime.fromisoformat(event["created_at"]).timestamp(),
            f"  {event['sequence']:>4}  attempt {event['attempt']}  {event['type']} {json.dumps(event['data'])[:160]}",
        )
        for event in (json.loads(file.read_text()).get(job, []) if file.exists() else [])
    ]
    for entry in read(journal):
        if entry["kind"] == "fault":
            where = f" in {entry['stage']}" if entry.get("stage") else ""
            text = f"FAULT {entry['number']} {entry['phase']}: {entry['name']} of {entry['target']}{where}"
            lines.append((entry["at"], text))
        elif entry.get("job") == job:
            said = {name: value for name, value in entry.items() if name not in ("at", "kind", "job")}
            lines.append((entry["at"], f"  client  {entry['kind']} {said}"))
    lines.sort(key=lambda line: line[0])
    began = lines[0][0] if lines else 0.0
    return "\n".join([f"timeline of {job}", *(f"{at - began:9.2f} s  {text}" for at, text in lines)])
