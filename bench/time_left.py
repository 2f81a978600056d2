"""Time left: records of real jobs, and how often the time that was said to be left was right.

`python -m bench.time_left record FOLDER [NAME …]` runs small jobs of different methods on the sample model, some with
other work on all processors from the middle on, and writes the events of each to FOLDER. `python -m bench.time_left
FOLDER` replays these records. It compares the time that the service said to be left, the time by its function now, and
the time by progress and elapsed time alone, each with the true one.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.service import sample_service
from secateur import Client
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

WITHIN: Final = 1.5
"""Largest ratio of the estimate to the truth, or of the truth to the estimate, that counts as right."""
FROM: Final = 0.1
"""Share of a job's duration from which estimates count."""
LEAST_ERROR: Final = 3.0
"""Error in seconds that always counts as right: near the end ratios say little."""
HELD: Final = 0.9
"""Share of a job's moments that must be right for the job to be right."""
LOADED: Final = "-loaded"
"""End of the names of records with other work from the middle on."""

_TEXT: Final = {"dataset": CALIBRATION, "samples": 8, "sequence_length": 256}
_COMMON: Final = {
    "model": MODEL,
    "calibration": _TEXT,
    "evaluation": {"datasets": [EVALUATION], "samples": 8, "sequence_length": 256},
}
_JOBS: Final[Mapping[str, Mapping[str, Any]]] = {
    "wanda": {"method": "wanda", "sparsity": 0.5},
    "sparsegpt": {"method": "sparsegpt", "sparsity": 0.5},
    "depth": {"method": "depth", "sparsity": 0.1, "parameters": {"criterion": "perplexity"}},
    "flap": {"method": "flap", "sparsity": 0.1},
    "frontier": {"method": "frontier", "pattern": "structured", "sparsity": 0.15},
    "recovered": {"method": "wanda", "sparsity": 0.5, "recovery": {"method": "finetune", "steps": 16, "batch_size": 2}},
    "written": {"method": "wanda", "sparsity": 0.4, "calibration": {**_TEXT, "dataset": "self"}},
}
"""Jobs by name: the parts of the body in which they differ."""


@dataclass(frozen=True)
class Record:
    """Events of one attempt, at seconds from its beginning, and its duration and estimated duration in seconds."""

    name: str
    seconds: float
    expected: float | None
    events: Sequence[tuple[float, str, dict[str, Any]]]

    @property
    def moments(self) -> range:
        """Return the whole seconds at which estimates count."""
        return range(int(FROM * self.seconds) + 1, int(self.seconds))


@contextmanager
def _other_work(after: float) -> Iterator[None]:
    """Keep all processors busy from `after` seconds on, until the body ends."""
    busy = [multiprocessing.Process(target=_spin, args=(after,), daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.join()


def _spin(after: float) -> None:
    time.sleep(after)
    while True:
        pass


def record(client: Client, folder: Path, name: str) -> None:
    """Run a job and write its record; with other work, if its name ends so."""
    body = {**_COMMON, **_JOBS[name.removesuffix(LOADED)]}
    quiet = folder / f"{name.removesuffix(LOADED)}.json"
    after = json.loads(quiet.read_text())["seconds"] / 2 if name.endswith(LOADED) else float("inf")
    events = []
    job = client.submit(**body)
    if name.endswith(LOADED):
        with _other_work(after):
            ended = client.wait(job.id, on_event=events.append)
    else:
        ended = client.wait(job.id, on_event=events.append)
    assert ended.status == "succeeded", ended.error
    assert ended.started_at is not None and ended.finished_at is not None
    began = ended.started_at
    written = {
        "name": name,
        "seconds": (ended.finished_at - began).total_seconds(),
        "expected": ended.estimated_seconds,
        "events": [((event.created_at - began).total_seconds(), event.type, event.data) for event in events],
    }
    (folder / f"{name}.json").write_text(json.dumps(written))
    print(f"{name}: {written['seconds']:.0f} s, {written['expected']:.0f} s expected", flush=True)


def main(arguments: Sequence[str]) -> int:
    if arguments[0] == "record":
        folder = Path(arguments[1])
        folder.mkdir(parents=True, exist_ok=True)
        with sample_service() as service:
            for name in arguments[2:] or [each + end for each in _JOBS for end in ("", LOADED)]:
                record(service.client, folder, name)
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
