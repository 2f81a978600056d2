"""The audit trail."""

from collections import Counter
from collections.abc import Iterator

from bench.chaos.observation import Observation, SeenJob, Violation

_ENDS = {"succeeded": "job.succeed", "failed": "job.fail", "queued": "job.requeue"}


def the_trail_is_whole(seen: Observation) -> Iterator[Violation]:
    """Whatever was done to a job has its entry, once: who submitted it, cancelled it or had it tried again, and each
    attempt's beginning and end.
    """
    for team in seen.teams:
        entries: dict[str, Counter[str]] = {}
        for entry in seen.reader.all(team, "/v1/audit"):
            entries.setdefault(entry["object_id"], Counter())[entry["action"]] += 1
        for found in seen.jobs.values():
            if found.team == team:
                yield from _differences(found, entries.get(found.id, Counter()))


def _differences(found: SeenJob, entries: Counter[str]) -> Iterator[Violation]:
    done = _done(found)
    for action in sorted(done | entries):
        if action.startswith("job.") and entries[action] != done[action]:
            text = f"{action} happened {done[action]} times by the events, {entries[action]} by the trail"
            yield Violation("audit", text, found.id)


def _done(found: SeenJob) -> Counter[str]:
    done: Counter[str] = Counter()
    for event in found.statuses:
        status, reason = event["data"]["status"], event["data"].get("reason")
        if reason == "submitted":
            done["job.submit"] += 1
        elif reason == "retry":
            done["job.retry"] += 1
        elif reason == "requested":
            done["job.cancel"] += 1
        elif status == "running":
            done["job.start"] += 1
        elif status == "cancelled":
            done["job.stop"] += 1
        else:
            done[_ENDS[status]] += 1
    return done
