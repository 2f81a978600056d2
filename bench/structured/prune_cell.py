"""One stage of a job on the sample model, done as a worker's runner does it: `prune`, or `recover` what was pruned."""

import time
from pathlib import Path
from typing import Any

from core.pipeline.messages import PruneOutput
from core.pipeline.stages.registry import SPECS
from core.pipeline.stages.run import run_stage
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
    clock = Clock()
    message = SPECS[spec["message"]["task"]].model_validate(spec["message"])
    Path(spec["message"]["work"]).mkdir(parents=True, exist_ok=True)
    output = run_stage(message, clock, lambda: 0)
    notes = output.report.notes if isinstance(output, PruneOutput) else output.notes
    clock.stage("end")
    return {"seconds": clock.seconds, "notes": [str(note) for note in notes]}
