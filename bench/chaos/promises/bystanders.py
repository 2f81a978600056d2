"""Faults from outside: nobody else notices them, and what caused them ends with a reason."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from bench.chaos.observation import NoAnswer, Observation, Violation
from bench.chaos.promises.jobs import PASSING

_PARSED_SECONDS = 30.0
"""Until a part is refused, on a machine that is busy."""


def bystanders_are_served(seen: Observation) -> Iterator[Violation]:
    """Whatever one team stored, uploaded or keeps on a hub, the others' calls, triggers, sweeps, webhooks and
    publications are served in time.
    """
    for entry in seen.noted("asked"):
        if entry["seconds"] is None or entry["seconds"] > entry["bound"]:
            took = entry["error"] or f"{entry['seconds']:.1f} s, and may take {entry['bound']:g}"
            yield Violation("bystanders", f"{entry['what']} during {entry['during']}: {took}")


def hostile_files_are_refused(seen: Observation) -> Iterator[Violation]:
    """A file made to be slow to read is refused in time, by an error with a name."""
    for entry in seen.noted("hostile"):
        is_refused = 400 <= entry["status"] < 500 and entry["code"]
        if not is_refused or entry["seconds"] > _PARSED_SECONDS:
            said = f"{entry['status']} {entry['code']} after {entry['seconds']:.1f} s"
            yield Violation("refusals", f"{entry['what']}: {said}")


def poisoned_rows_end_with_a_reason(seen: Observation) -> Iterator[Violation]:
    """A row that cannot be carried out is given up, and its team is told why."""
    for entry in seen.noted("poisoned"):
        path, has_reason = _REASONS[entry["what"]]
        try:
            found = seen.reader.json(entry["team"], path.format(id=entry["id"]))
            said = "" if has_reason(found) else json.dumps(found)[:500]
        except NoAnswer as error:
            said = str(error)
        if said:
            yield Violation("poisoned", f"the {entry['what']} {entry['id']} has not ended with a reason: {said}")


_REASONS: Final[dict[str, tuple[str, Callable[[dict[str, Any]], bool]]]] = {
    "trigger": (
        "/v1/triggers/{id}/firings",
        lambda page: any(each["outcome"] == "refused" and each["error"]["message"] for each in page["data"]),
    ),
    **{
        what: (path, lambda row: row["status"] == "failed" and bool(row["error"]["message"]))
        for what, path in (
            ("sweep", "/v1/sweeps/{id}"),
            ("publication", "/v1/publications/{id}"),
            ("job", "/v1/jobs/{id}"),
        )
    },
}
"""Address at which a team reads about each, and a flag that says if the answer names a reason."""


def triggers_outlast_the_hub(seen: Observation) -> Iterator[Violation]:
    """A schedule that came due while the hub was away makes its job once the hub is back, and is not disabled."""
    for entry in seen.noted("hub_trigger"):
        path = f"/v1/triggers/{entry['id']}"
        trigger = seen.reader.json(entry["team"], path)
        firings = seen.reader.json(entry["team"], f"{path}/firings")["data"]
        jobs = [seen.reader.json(entry["team"], f"/v1/jobs/{each['job_id']}") for each in firings if each["job_id"]]
        if not trigger["enabled"]:
            yield Violation("hub", f"trigger {entry['id']} is disabled: {trigger['disabled_reason']}")
        elif not jobs:
            said = [(each["outcome"], each["error"]) for each in firings]
            yield Violation("hub", f"trigger {entry['id']} came due while the hub was away, and made no job: {said}")
        for job in jobs:
            if job["status"] == "failed" and job["error"]["code"] not in PASSING:
                yield Violation("hub", f"its job failed: {job['error']}", job["id"])
