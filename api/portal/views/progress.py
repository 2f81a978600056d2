"""Progress of a job: its stages with their times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from core.errors import GateMissed
from core.service.jobs.states import STAGES
from secateur_wire.jobs import JobAttempt, JobEvent
from secateur_wire.states import Stage

STAGE_WORDS: Final[Mapping[Stage, str]] = {
    "fetch": "The model's files and the texts come onto the worker, and are checked against their hashes.",
    "open": "The model is read and described, and the calibration text is cut into windows of tokens.",
    "prune": "The calibration text goes through the model block by block, and from each block goes what its output "
    "depends on least. The reconstruction error says how much of that output changed: 0 % is nothing.",
    "recover": "What is left is trained further. The loss should fall; once it is level, more training wins little.",
    "evaluate": "The dense and the pruned model are measured alike. Perplexity says between how many tokens a model "
    "wavers at each place of a text: lower is better, and the ratio to the dense model is what pruning cost.",
    "verify": "A fresh process opens the result as you will, and compares what it computes with what was measured.",
    "store": "The files go to the store; they can be downloaded once all are there.",
}
"""Each stage: its work, and the meaning of its numbers, for somebody who sees it for the first time."""


@dataclass(frozen=True)
class StageTime:
    """Stage of an attempt and the time it has taken so far.

    `seconds` is None where it did not begin, `running_since` where it does not run; `is_cut_short` where the attempt
    ended in it without having finished it.
    """

    stage: Stage
    seconds: float | None
    running_since: datetime | None
    is_cut_short: bool = False


def stage_times(attempt: JobAttempt, events: Sequence[JobEvent], now: datetime) -> list[StageTime]:
    """Return one attempt's stages, in the order of stages; `events` are its stage events. It begins by fetching."""
    begun: list[tuple[str, datetime]] = [("fetch", attempt.started_at)]
    begun += [(str(event.data["stage"]), event.created_at) for event in events if event.attempt == attempt.attempt]
    seconds = _added_up(begun, attempt.ended_at or now) if attempt.stages is None else attempt.stages
    last, since = begun[-1]
    if len(begun) == 1:  # the events may have been removed since
        last = next((stage for stage in reversed(STAGES) if stage in seconds), last)
    is_over = attempt.ended_at is not None
    has_finished = attempt.outcome == "succeeded" or attempt.error_code == GateMissed.code
    return [
        StageTime(
            stage,
            seconds.get(stage),
            running_since=since if stage == last and not is_over else None,
            is_cut_short=stage == last and is_over and not has_finished,
        )
        for stage in STAGES
    ]


def _added_up(begun: Sequence[tuple[str, datetime]], end: datetime) -> Mapping[str, float]:
    """Return the seconds of each stage: it lasts until the next begins, and may begin more than once."""
    seconds: dict[str, float] = {}
    ends = [at for _, at in begun[1:]] + [end]
    for (stage, at), until in zip(begun, ends, strict=True):
        seconds[stage] = seconds.get(stage, 0.0) + max((until - at).total_seconds(), 0.0)
    return seconds
