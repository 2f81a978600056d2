"""One stage of a job on the sample model, done as a worker's runner does it: `prune`, or `recover` what was pruned."""

import time
from typing import Any

import torch

from core.pipeline.messages import LanguageSpec
from core.pipeline.stages.context import StageContext
from core.progress import Progress


class Clock(Progress):
    """Seconds of each stage that was begun, until the next one or the end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._since = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = name, now


def work(spec: dict[str, Any]) -> dict[str, Any]:
    """Do the stage of the spec's `message`; the seconds of its parts, and what the report would note."""
    message, clock = LanguageSpec.model_validate(spec["message"]), Clock()
    context = StageContext(torch.device("cpu"), clock, lambda: 0)
    message.work.mkdir(parents=True, exist_ok=True)
    if message.task == "prune":
        from core.pipeline.stages.prune import prune_model

        notes = prune_model(message, context).report.notes or []
    else:
        from core.pipeline.stages.recover import recover_model

        notes = recover_model(message, context).notes
    clock.stage("end")
    return {"seconds": clock.seconds, "notes": [str(note) for note in notes]}
