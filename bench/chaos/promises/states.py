"""A job's life: states, attempts, stages and progress, as its events tell them."""

from collections import defaultdict
from collections.abc import Iterator

from bench.chaos.observation import ENDED, Observation, SeenJob, Violation

_NEXT = {
    None: {"queued"},
    "queued": {"running", "cancelled"},
    "running": {"succeeded", "failed", "cancelled", "cancelling", "queued"},
    "cancelling": {"cancelled"},
    "succeeded": set(),
    "failed": {"queued"},
    "cancelled": {"queued"},
}
_STAGES = ("fetch", "open", "prune", "recover", "evaluate", "verify", "store")
_OUTCOMES = {
    "succeeded": {"succeeded"},
    "failed": {"failed", "lost"},
    "cancelled": {"cancelled"},
    "queued": {"failed", "lost", "released"},
}
"""How an attempt may have ended by the state it left the job in."""


def only_legal_transitions(seen: Observation) -> Iterator[Violation]:
    """A job goes from state to state only as its life allows, and is in the one its last event says."""
    for found in seen.jobs.values():
        before: str | None = None
        for event in found.statuses:
            status = event["data"]["status"]
            is_refused = (before, status, event["attempt"]) == (
                "queued",
                "failed",
                0,
            )  # its model could not be resolved
            if status not in _NEXT[before] and not is_refused:
                yield Violation("states", f"event {event['sequence']}: from {before} to {status}", found.id)
            before = status
        if before != found.job["status"]:
            yield Violation("states", f"is {found.job['status']}, its last event says {before}", found.id)
        if (found.job["finished_at"] is not None) != (found.job["status"] in ENDED):
            yield Violation("states", f"{found.job['status']} with finished_at {found.job['finished_at']}", found.id)


def attempts_are_counted(seen: Observation) -> Iterator[Violation]:
    """Every time a worker takes a job is an attempt, counted one by one, and recorded with how it ended."""
    for found in seen.jobs.values():
        began = [event["attempt"] for event in found.statuses if event["data"]["status"] == "running"]
        if began != list(range(1, len(began) + 1)):
            yield Violation("attempts", f"attempts that began, by the events: {began}", found.id)
        if found.job["attempt"] != len(began):
            yield Violation("attempts", f"{found.job['attempt']} by the job, {len(began)} by the events", found.id)
        if [each["attempt"] for each in found.attempts] != began:
            listed = [each["attempt"] for each in found.attempts]
            yield Violation("attempts", f"{listed} are listed, {began} began", found.id)
        yield from _wrong_outcomes(found)


def _wrong_outcomes(found: SeenJob) -> Iterator[Violation]:
    ends = {
        event["attempt"]: event["data"]["status"]
        for event in reversed(found.statuses)  # the first that ends the attempt, not a cancellation in the queue
        if event["data"]["status"] in _OUTCOMES and event["data"].get("reason") not in ("retry", "requested")
    }
    for each in found.attempts:
        end = ends.get(each["attempt"])
        if each["outcome"] not in (_OUTCOMES[end] if end else {None}):
            text = f"attempt {each['attempt']} is recorded as {each['outcome']}, and left the job {end}"
            yield Violation("attempts", text, found.id)
        if (each["ended_at"] is None) != (each["outcome"] is None):
            yield Violation("attempts", f"attempt {each['attempt']}: {each['outcome']}, {each['ended_at']}", found.id)


def stages_come_in_order(seen: Observation) -> Iterator[Violation]:
    """The stages of an attempt come in their order."""
    for found in seen.jobs.values():
        stages: dict[int, list[str]] = defaultdict(list)
        for event in found.events:
            if event["type"] == "stage":
                stages[event["attempt"]].append(event["data"]["stage"])
        for attempt, names in stages.items():
            if sorted(names, key=_STAGES.index) != names:
                yield Violation("stages", f"attempt {attempt} went through {names}", found.id)


def progress_never_goes_back(seen: Observation) -> Iterator[Violation]:
    """Within an attempt progress goes from 0 to 1 and never back."""
    for found in seen.jobs.values():
        reached: dict[int, float] = defaultdict(float)
        for event in found.events:
            if event["type"] == "progress":
                progress = event["data"]["progress"]
                if not reached[event["attempt"]] <= progress <= 1:
                    text = f"event {event['sequence']}: {progress} after {reached[event['attempt']]}"
                    yield Violation("progress", text, found.id)
                reached[event["attempt"]] = progress
