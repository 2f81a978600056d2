"""Jobs that were accepted, and how they end."""

from collections import defaultdict
from collections.abc import Iterator

from bench.chaos.observation import ENDED, Observation, Violation

PASSING = frozenset({"runner_lost", "disk_full", "unavailable", "store_unavailable", "hub_unavailable"})
"""Codes of what may end an attempt because of what was done to the installation; a job may run out of attempts."""


def accepted_jobs_exist(seen: Observation) -> Iterator[Violation]:
    """A job whose submission was answered is there, whatever happened afterwards."""
    for entry in seen.noted("accepted"):
        found = seen.jobs.get(entry["job"])
        if found is None or found.team != entry["team"]:
            yield Violation("accepted", f"{entry['team']} was told of it, and does not have it", entry["job"])


def one_key_makes_one_job(seen: Observation) -> Iterator[Violation]:
    """What was submitted more than once with one idempotency key is one job, also where no answer came."""
    told: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in seen.noted("accepted"):
        told[entry["team"], entry["key"]].add(entry["job"])
    for found in seen.jobs.values():
        if "submission" in found.job["metadata"]:
            told[found.team, found.job["metadata"]["submission"]].add(found.id)
    for (team, key), jobs in told.items():
        if len(jobs) > 1:
            yield Violation("idempotency", f"{team}'s key {key} made {len(jobs)} jobs: {sorted(jobs)}", min(jobs))


def unended(seen: Observation) -> Iterator[Violation]:
    """Every job ends within the bound after the last fault, and none waits longer."""
    for found in seen.jobs.values():
        if found.job["status"] not in ENDED:
            what = f"is still {found.job['status']} (attempt {found.job['attempt']}, stage {found.job['stage']})"
            yield Violation("ends", f"{what}, longer than the bound after the last fault", found.id)


def a_life_ends_once(seen: Observation) -> Iterator[Violation]:
    """A job ends exactly once; only a retry that somebody asked for begins another life, which ends once too."""
    for found in seen.jobs.values():
        lives: list[list[str]] = [[]]
        for event in found.statuses:
            if event["data"]["status"] == "queued" and event["data"].get("reason") == "retry":
                lives.append([])
            if event["data"]["status"] in ENDED:
                lives[-1].append(event["data"]["status"])
        for number, ends in enumerate(lives, start=1):
            is_last = number == len(lives)
            if len(ends) > 1 or (not ends and not (is_last and found.job["status"] not in ENDED)):
                yield Violation("ends", f"life {number} of {len(lives)} ended {len(ends)} times: {ends}", found.id)


def jobs_fail_for_their_own_reasons(seen: Observation) -> Iterator[Violation]:
    """A job fails for the reason it was made to, or has used up its attempts for passing ones; what should fail does
    not succeed.
    """
    for entry in {entry["job"]: entry for entry in seen.noted("accepted")}.values():
        found = seen.jobs.get(entry["job"])
        if found is None or "ends" not in entry:
            continue
        status, error = found.job["status"], found.job["error"]
        if status == "succeeded" and entry["ends"] is not None:
            yield Violation("ends", f"succeeded, and should have failed: {entry['ends']}", found.id)
        if status == "failed" and error["code"] not in PASSING | {entry["ends"]}:
            yield Violation("ends", f"failed: {error['code']}: {error['message']}", found.id)


def clients_are_told_nothing_wrong(seen: Observation) -> Iterator[Violation]:
    """A good client's requests are answered, or refused for a passing reason: never by an error of the service's own,
    nor by saying that what was accepted is wrong or not there.
    """
    for entry in seen.noted("refused"):
        yield Violation("answers", f"{entry['doing']} of {entry['team']}: {entry['status']} {entry['text']}")
