"""Events: their numbers, what watchers saw of them, and that no attempt writes once another has begun."""

from collections.abc import Iterator

from bench.chaos.observation import ENDED, LEASED, Observation, SeenJob, Violation


def numbers_have_no_gaps(seen: Observation) -> Iterator[Violation]:
    """A job's events are numbered from 1 on, without a gap and none twice."""
    for found in seen.jobs.values():
        numbers = [event["sequence"] for event in found.events]
        if numbers != list(range(1, len(numbers) + 1)):
            wrong = next((at for at, number in enumerate(numbers, start=1) if at != number), len(numbers) + 1)
            near = numbers[max(0, wrong - 3) : wrong + 2]
            yield Violation("events", f"numbers are not 1 to {len(numbers)}: {near} around {wrong}", found.id)


def watchers_see_every_event_once(seen: Observation) -> Iterator[Violation]:
    """A watcher who goes on with Last-Event-ID, through whichever process, gets every event once and in order."""
    for entry in seen.noted("watched"):
        numbers = entry["sequences"]
        found = seen.jobs.get(entry["job"])
        if numbers != list(range(1, len(numbers) + 1)):
            yield Violation("watching", f"a watcher got {_shortened(numbers)}", entry["job"])
        elif found is not None and numbers and entry["ended"]:
            by_number = {event["sequence"]: event for event in found.events}
            last = by_number.get(numbers[-1])
            if last is None or last["data"].get("status") not in ENDED:
                yield Violation("watching", f"the stream ended behind event {numbers[-1]}: {last}", entry["job"])


def no_write_of_an_attempt_after_a_newer_one(seen: Observation) -> Iterator[Violation]:
    """Once an attempt has begun, nothing is written by an earlier one: no event, no report, no artifact. And an attempt
    writes only while it holds the job.
    """
    for found in seen.jobs.values():
        yield from _events_of_other_attempts(found)
        yield from _kept_of_other_attempts(found)


def _events_of_other_attempts(found: SeenJob) -> Iterator[Violation]:
    newest, status = 0, ""
    stages: set[tuple[int, str]] = set()
    before: tuple[int, str] | None = None
    for event in found.events:
        where = f"event {event['sequence']} ({event['type']} {event['data']})"
        if event["attempt"] < newest:
            yield Violation("fencing", f"{where} is of attempt {event['attempt']}, after {newest} began", found.id)
        newest = max(newest, event["attempt"])
        if event["type"] == "status":
            status = event["data"]["status"]
            continue
        if status not in LEASED and event["attempt"]:  # before the first attempt it is the service that writes
            yield Violation("fencing", f"{where} was written while the job was {status}", found.id)
        stage = (event["attempt"], event["data"]["stage"]) if event["type"] == "stage" else None
        if stage is not None:
            if stage in stages and stage != before:  # written again where the commit was not answered
                yield Violation("fencing", f"{where}: the stage begins twice, as of two attempts", found.id)
            stages.add(stage)
        before = stage


def _kept_of_other_attempts(found: SeenJob) -> Iterator[Violation]:
    written = (found.report or {}).get("attempt")
    if written is not None and found.kept_attempt is not None and written != found.kept_attempt:
        text = f"the report is of attempt {written}, the job was ended by attempt {found.kept_attempt}"
        yield Violation("fencing", text, found.id)


def _shortened(numbers: list[int]) -> str:
    return f"{numbers[:20]}{' …' if len(numbers) > 20 else ''}"
