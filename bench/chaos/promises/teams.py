"""Teams: what each is told that it uses, and what faults from outside show to the others and to their own."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from bench.chaos.observation import LEASED, NoAnswer, Observation
from bench.chaos.promises.jobs import PASSING
from bench.chaos.promises.promise import Broken, of_entries, promise

_PARSED_SECONDS = 30.0
"""Until a part is refused, on a machine that is busy."""


@promise("counts", "settling")
def counts_are_what_the_lists_say(seen: Observation) -> Iterator[Broken]:
    """A team's running and queued jobs and stored bytes, by which quotas go, are what its lists and the store hold."""
    objects = seen.bucket.objects()
    for team in seen.teams:
        usage = seen.reader.json(team, "/v1/team")["usage"]
        jobs = [found for found in seen.jobs.values() if found.team == team]
        stored = sum(file["bytes"] for found in jobs for file in found.files)
        for kind in ("models", "datasets"):
            prefixes = tuple(f"{kind}/{each['id']}/" for each in seen.reader.all(team, f"/v1/{kind}"))
            stored += sum(size for key, size in objects.items() if key.startswith(prefixes))
        opened = seen.reader.all(team, "/v1/uploads", status="open")
        stored += sum(file["bytes"] for upload in opened for file in upload["files"])
        counted = {
            "running": sum(found.status in LEASED for found in jobs),
            "queued": sum(found.status == "queued" for found in jobs),
            "stored_bytes": stored,
        }
        for name, count in counted.items():
            if usage[name] != count:
                yield f"{team}: {name} is told to be {usage[name]}, and is {count}", None


@of_entries("asked", "bystanders")
def bystanders_are_served(entry: dict[str, Any]) -> Iterator[str]:
    """Whatever one team stored, uploaded or keeps on a hub, the others' calls, triggers, sweeps, webhooks and
    publications are served in time.
    """
    if entry["seconds"] is None or entry["seconds"] > entry["bound"]:
        took = entry["error"] or f"{entry['seconds']:.1f} s, and may take {entry['bound']:g}"
        yield f"{entry['what']} during {entry['during']}: {took}"


@of_entries("hostile", "refusals")
def hostile_files_are_refused(entry: dict[str, Any]) -> Iterator[str]:
    """A file made to be slow to read is refused in time, by an error with a name."""
    is_refused = 400 <= entry["status"] < 500 and entry["code"]
    if not is_refused or entry["seconds"] > _PARSED_SECONDS:
        yield f"{entry['what']}: {entry['status']} {entry['code']} after {entry['seconds']:.1f} s"


def _was_refused(firings: dict[str, Any]) -> bool:
    return any(each["outcome"] == "refused" and each["error"]["message"] for each in firings["data"])


def _has_failed(row: dict[str, Any]) -> bool:
    return row["status"] == "failed" and bool(row["error"]["message"])


_REASONS: Final[dict[str, tuple[str, Callable[[dict[str, Any]], bool]]]] = {
    "trigger": ("/v1/triggers/{id}/firings", _was_refused),
    "sweep": ("/v1/sweeps/{id}", _has_failed),
    "publication": ("/v1/publications/{id}", _has_failed),
    "job": ("/v1/jobs/{id}", _has_failed),
}
"""Address at which a team reads about each, and a flag that says if the answer names a reason."""


@promise("poisoned", "settling")
def poisoned_rows_end_with_a_reason(seen: Observation) -> Iterator[Broken]:
    """A row that cannot be carried out is given up, and its team is told why."""
    for entry in seen.noted("poisoned"):
        path, has_reason = _REASONS[entry["what"]]
        try:
            found = seen.reader.json(entry["team"], path.format(id=entry["id"]))
            said = "" if has_reason(found) else json.dumps(found)[:500]
        except NoAnswer as error:
            said = str(error)
        if said:
            yield f"the {entry['what']} {entry['id']} has not ended with a reason: {said}", None


@promise("hub")
def triggers_outlast_the_hub(seen: Observation) -> Iterator[Broken]:
    """A schedule that came due while the hub was away makes its job once the hub is back, and is not disabled."""
    for entry in seen.noted("hub_trigger"):
        path = f"/v1/triggers/{entry['id']}"
        trigger = seen.reader.json(entry["team"], path)
        firings = seen.reader.json(entry["team"], f"{path}/firings")["data"]
        jobs = [seen.reader.json(entry["team"], f"/v1/jobs/{each['job_id']}") for each in firings if each["job_id"]]
        if not trigger["enabled"]:
            yield f"trigger {entry['id']} is disabled: {trigger['disabled_reason']}", None
        elif not jobs:
            said = [(each["outcome"], each["error"]) for each in firings]
            yield f"trigger {entry['id']} came due while the hub was away, and made no job: {said}", None
        for job in jobs:
            if job["status"] == "failed" and job["error"]["code"] not in PASSING:
                yield f"its job failed: {job['error']}", job["id"]
