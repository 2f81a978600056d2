"""How far a job is: its stages with their times, and how long it will still take, about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from core.jobs.schemas import JobAttempt, JobEvent
from core.jobs.states import STAGES, Stage

_TRUSTED = 0.25
"""Progress from which an attempt's own pace counts alone; before, the estimate does too, less and less."""


@dataclass(frozen=True)
class StageTime:
    """A stage of an attempt and what it took so far; `seconds` is None where it did not begin."""

    stage: Stage
    seconds: float | None
    is_running: bool


def remaining_seconds(progress: float, elapsed: float, estimated: float | None) -> float | None:
    """Of an attempt that is so far after `elapsed` seconds; `estimated` is how long it was expected to take. None where
    nothing can be said."""
    pace = elapsed / progress if progress >= 0.02 else None
    if pace is None and estimated is None:
        return None
    if pace is None:
        return max(estimated - elapsed, 0.0) if estimated is not None else None
    weight = 1.0 if estimated is None else min(progress / _TRUSTED, 1.0)
    total = weight * pace + (1 - weight) * max(estimated or 0.0, elapsed)
    return max(total - elapsed, 0.0)


def stage_times(attempt: JobAttempt, events: Sequence[JobEvent], now: datetime) -> list[StageTime]:
    """Of one attempt, in the order of stages; `events` are those of its stages. An attempt begins by fetching."""
    running: Stage | None = None
    if attempt.stages is not None:
        seconds: Mapping[str, float] = attempt.stages
    else:
        seconds, running = _from_events(attempt, events, now)
        running = running if attempt.ended_at is None else None
    return [StageTime(stage, seconds.get(stage), stage == running) for stage in STAGES]


def _from_events(attempt: JobAttempt, events: Sequence[JobEvent], now: datetime) -> tuple[dict[str, float], Stage]:
    begun: list[tuple[Stage, datetime]] = [("fetch", attempt.started_at)]
    begun += [(event.data["stage"], event.created_at) for event in events if event.attempt == attempt.attempt]
    ends = [at for _, at in begun[1:]] + [attempt.ended_at or now]
    seconds: dict[str, float] = {}
    for (stage, at), end in zip(begun, ends, strict=True):
        seconds[stage] = seconds.get(stage, 0.0) + max((end - at).total_seconds(), 0.0)
    return seconds, begun[-1][0]
