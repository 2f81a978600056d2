"""Jobs that were accepted, how they end, and what clients were told of them."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from bench.chaos.observation import ENDED, Observation, SeenJob
from bench.chaos.promises.promise import Broken, of_entries, of_jobs, promise

PASSING = frozenset({"runner_lost", "disk_full", "unavailable", "store_unavailable", "hub_unavailable"})
"""Codes of what may end an attempt because of what was done to the installation; a job may run out of attempts."""


@of_jobs("ends")
def every_job_ends(found: SeenJob) -> Iterator[str]:
    """Every job ends within the bound after the last fault, and none waits longer."""
    if found.status not in ENDED:
        what = f"is still {found.status} (attempt {found.job['attempt']}, stage {found.job['stage']})"
        yield f"{what}, longer than the bound after the last fault"


@promise("accepted")
def accepted_jobs_exist(seen: Observation) -> Iterator[Broken]:
    """A job whose submission was answered is there, whatever happened afterwards."""
    for entry in seen.noted("accepted"):
        found = seen.jobs.get(entry["job"])
        if found is None or found.team != entry["team"]:
            yield f"{entry['team']} was told of it, and does not have it", entry["job"]


@promise("idempotency")
def one_key_makes_one_job(seen: Observation) -> Iterator[Broken]:
    """What was submitted more than once with one idempotency key is one job, also where no answer came."""
    told: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in seen.noted("accepted"):
        told[entry["team"], entry["key"]].add(entry["job"])
    for found in seen.jobs.values():
        if "submission" in found.job["metadata"]:
            told[found.team, found.job["metadata"]["submission"]].add(found.id)
    for (team, key), jobs in told.items():
        if len(jobs) > 1:
            yield f"{team}'s key {key} made {len(jobs)} jobs: {sorted(jobs)}", min(jobs)


@of_jobs("ends")
def a_life_ends_once(found: SeenJob) -> Iterator[str]:
    """A job ends exactly once; only a retry that somebody asked for begins another life, which ends once too."""
    lives: list[list[str]] = [[]]
    for event in found.statuses:
        if event["data"]["status"] == "queued" and event["data"].get("reason") == "retry":
            lives.append([])
        if event["data"]["status"] in ENDED:
            lives[-1].append(event["data"]["status"])
    for number, ends in enumerate(lives, start=1):
        is_last = number == len(lives)
        if len(ends) > 1 or (not ends and not (is_last and found.status not in ENDED)):
            yield f"life {number} of {len(lives)} ended {len(ends)} times: {ends}"


@promise("ends")
def jobs_fail_for_their_own_reasons(seen: Observation) -> Iterator[Broken]:
    """A job fails for the reason it was made to, or has used up its attempts for passing ones; what should fail does
    not succeed.
    """
    for entry in {entry["job"]: entry for entry in seen.noted("accepted")}.values():
        found = seen.jobs.get(entry["job"])
        if found is None or "ends" not in entry:
            continue
        error = found.job["error"]
        if found.status == "succeeded" and entry["ends"] is not None:
            yield f"succeeded, and should have failed: {entry['ends']}", found.id
        if found.status == "failed" and error["code"] not in PASSING | {entry["ends"]}:
            yield f"failed: {error['code']}: {error['message']}", found.id


@of_entries("refused", "answers")
def clients_are_told_nothing_wrong(entry: dict[str, Any]) -> Iterator[str]:
    """A good client's requests are answered, or refused for a passing reason: never by an error of the service's own,
    nor by saying that what was accepted is wrong or not there.
    """
    yield f"{entry['doing']} of {entry['team']}: {entry['status']} {entry['text']}"


@promise("watching")
def watchers_see_every_event_once(seen: Observation) -> Iterator[Broken]:
    """A watcher who goes on with Last-Event-ID, through whichever process, gets every event once and in order."""
    for entry in seen.noted("watched"):
        numbers = entry["sequences"]
        found = seen.jobs.get(entry["job"])
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"a watcher got {numbers[:20]}{' …' if len(numbers) > 20 else ''}", entry["job"]
        elif found is not None and numbers and entry["ended"]:
            last = next((event for event in found.events if event["sequence"] == numbers[-1]), None)
            if last is None or last["data"].get("status") not in ENDED:
                yield f"the stream ended behind event {numbers[-1]}: {last}", entry["job"]
