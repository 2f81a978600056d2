"""A job's life: its events, states, attempts, stages and progress; no attempt writes once another has begun."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from bench.chaos.observation import ENDED, LEASED, Observation, SeenJob
from bench.chaos.promises.promise import Broken, of_jobs, promise

STAGES = ("fetch", "open", "prune", "recover", "evaluate", "verify", "store")
_NEXT = {
    None: {"queued"},
    "queued": {"running", "cancelled"},
    "running": {"succeeded", "failed", "cancelled", "cancelling", "queued"},
    "cancelling": {"cancelled"},
    "succeeded": set(),
    "failed": {"queued"},
    "cancelled": {"queued"},
}
_OUTCOMES = {
    "succeeded": {"succeeded"},
    "failed": {"failed", "lost"},
    "cancelled": {"cancelled"},
    "queued": {"failed", "lost", "released"},
}
"""Ends that an attempt may have had, by the state in which it left the job."""
_ACTIONS_OF_REASONS = {"submitted": "job.submit", "retry": "job.retry", "requested": "job.cancel"}
_ACTIONS_OF_STATUSES = {
    "running": "job.start",
    "cancelled": "job.stop",
    "succeeded": "job.succeed",
    "failed": "job.fail",
    "queued": "job.requeue",
}


@of_jobs("events")
def numbers_have_no_gaps(found: SeenJob) -> Iterator[str]:
    """A job's events are numbered from 1 on, without a gap and none twice."""
    numbers = [event["sequence"] for event in found.events]
    if numbers != list(range(1, len(numbers) + 1)):
        wrong = next((at for at, number in enumerate(numbers, start=1) if at != number), len(numbers) + 1)
        yield f"numbers are not 1 to {len(numbers)}: {numbers[max(0, wrong - 3) : wrong + 2]} around {wrong}"


@of_jobs("fencing")
def no_write_of_an_attempt_after_a_newer_one(found: SeenJob) -> Iterator[str]:
    """An attempt writes only while it holds the job. Once it has begun, no earlier attempt writes an event, a report or
    an artifact.
    """
    newest, status = 0, ""
    stages: set[tuple[int, str]] = set()
    before: tuple[int, str] | None = None
    for event in found.events:
        where = f"event {event['sequence']} ({event['type']} {event['data']})"
        if event["attempt"] < newest:
            yield f"{where} is of attempt {event['attempt']}, after {newest} began"
        newest = max(newest, event["attempt"])
        if event["type"] == "status":
            status = event["data"]["status"]
            continue
        if status not in LEASED and event["attempt"]:  # before the first attempt it is the service that writes
            yield f"{where} was written while the job was {status}"
        stage = (event["attempt"], event["data"]["stage"]) if event["type"] == "stage" else None
        if stage is not None:
            if stage in stages and stage != before:  # written again where the commit was not answered
                yield f"{where}: the stage begins twice, as of two attempts"
            stages.add(stage)
        before = stage
    written = (found.report or {}).get("attempt")
    if written is not None and found.kept_attempt is not None and written != found.kept_attempt:
        yield f"the report is of attempt {written}, the job was ended by attempt {found.kept_attempt}"


@of_jobs("states")
def only_legal_transitions(found: SeenJob) -> Iterator[str]:
    """A job goes from state to state only as its life allows, and is in the one its last event says."""
    before: str | None = None
    for event in found.statuses:
        status = event["data"]["status"]
        step = (before, status, event["attempt"])
        if status not in _NEXT[before] and step != ("queued", "failed", 0):  # its model could not be resolved
            yield f"event {event['sequence']}: from {before} to {status}"
        before = status
    if before != found.status:
        yield f"is {found.status}, its last event says {before}"
    if (found.job["finished_at"] is not None) != (found.status in ENDED):
        yield f"{found.status} with finished_at {found.job['finished_at']}"


@of_jobs("attempts")
def attempts_are_counted(found: SeenJob) -> Iterator[str]:
    """Every time a worker takes a job is an attempt, counted one by one, and recorded with how it ended."""
    began = [event["attempt"] for event in found.statuses if event["data"]["status"] == "running"]
    if began != list(range(1, len(began) + 1)):
        yield f"attempts that began, by the events: {began}"
    if found.job["attempt"] != len(began):
        yield f"{found.job['attempt']} by the job, {len(began)} by the events"
    if (listed := [each["attempt"] for each in found.attempts]) != began:
        yield f"{listed} are listed, {began} began"
    ends = {
        event["attempt"]: event["data"]["status"]
        for event in reversed(found.statuses)  # the first that ends the attempt, not a cancellation in the queue
        if event["data"]["status"] in _OUTCOMES and event["data"].get("reason") not in ("retry", "requested")
    }
    for each in found.attempts:
        end = ends.get(each["attempt"])
        if each["outcome"] not in (_OUTCOMES[end] if end else {None}):
            yield f"attempt {each['attempt']} is recorded as {each['outcome']}, and left the job {end}"
        if (each["ended_at"] is None) != (each["outcome"] is None):
            yield f"attempt {each['attempt']}: {each['outcome']}, {each['ended_at']}"


@of_jobs("stages")
def stages_come_in_order(found: SeenJob) -> Iterator[str]:
    """The stages of an attempt come in their order."""
    stages: dict[int, list[str]] = defaultdict(list)
    for event in found.events:
        if event["type"] == "stage":
            stages[event["attempt"]].append(event["data"]["stage"])
    for attempt, names in stages.items():
        if sorted(names, key=STAGES.index) != names:
            yield f"attempt {attempt} went through {names}"


@of_jobs("progress")
def progress_never_goes_back(found: SeenJob) -> Iterator[str]:
    """Within an attempt progress goes from 0 to 1 and never back."""
    reached: dict[int, float] = defaultdict(float)
    for event in found.events:
        if event["type"] == "progress":
            progress = event["data"]["progress"]
            if not reached[event["attempt"]] <= progress <= 1:
                yield f"event {event['sequence']}: {progress} after {reached[event['attempt']]}"
            reached[event["attempt"]] = progress


@promise("audit")
def the_trail_is_whole(seen: Observation) -> Iterator[Broken]:
    """Whatever was done to a job has its entry, once: who submitted it, cancelled it or had it tried again, and each
    attempt's beginning and end.
    """
    for team in seen.teams:
        entries: dict[str, Counter[str]] = defaultdict(Counter)
        for entry in seen.reader.all(team, "/v1/audit"):
            entries[entry["object_id"]][entry["action"]] += 1
        for found in seen.jobs.values():
            if found.team != team:
                continue
            done = Counter(
                _ACTIONS_OF_REASONS.get(event["data"].get("reason")) or _ACTIONS_OF_STATUSES[event["data"]["status"]]
                for event in found.statuses
            )
            for action in sorted(done | entries[found.id]):
                written = entries[found.id][action]
                if action.startswith("job.") and written != done[action]:
                    yield f"{action} happened {done[action]} times by the events, {written} by the trail", found.id
