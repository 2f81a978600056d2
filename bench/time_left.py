"""Time left: records of real jobs, and how often the time that was said to be left was right.

`python -m bench.time_left record FOLDER [NAME …]` runs small jobs of different methods on the sample model, some with
other work on all processors from the middle on, and writes the events of each to FOLDER. `python -m bench.time_left
FOLDER` replays these records. It compares the time that the service said to be left, the time by its function now, and
the time by progress and elapsed time alone, each with the true one.
"""

import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.page import table
from bench.service import Service, sample_service
from secateur import Client
from secateur_wire.jobs import JobEvent
from worker.samples.language import CALIBRATION, EVALUATION, MODEL
from worker.supervisor.time_left import WorkRecord

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

SMALL: Final = "small-llama"
"""Model of the jobs, with random weights and the tokenizer of the sample."""

_TEXT: Final = {"dataset": CALIBRATION, "samples": 32, "sequence_length": 256}
_COMMON: Final = {
    "model": SMALL,
    "calibration": _TEXT,
    "evaluation": {"datasets": [EVALUATION], "samples": 32, "sequence_length": 256},
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


def add_small_model(service: Service) -> None:
    """Write the small model into the service's folder of models, and register it."""
    folder = service.settings.models_root / SMALL
    if not folder.exists():
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        tokenizer = AutoTokenizer.from_pretrained(service.settings.models_root / MODEL)
        tokenizer.save_pretrained(folder)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=16,
            num_attention_heads=6,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    if all(each.name != SMALL for each in service.client.models()):
        service.client.add_model(SMALL, str(folder.resolve()))


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
    events: list[JobEvent] = []
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


def by_elapsed(record: Record, second: float) -> float | None:
    """Return the time left by progress and elapsed time alone, blended with the estimate for the first quarter."""
    progress = max(
        (data["progress"] for at, kind, data in record.events if kind == "progress" and at <= second), default=0
    )
    pace = second / progress if progress >= 0.02 else None
    if pace is None:
        return None if record.expected is None or record.expected <= second else record.expected - second
    weight = 1.0 if record.expected is None else min(progress / 0.25, 1.0)
    return max(weight * pace + (1 - weight) * max(record.expected or 0.0, second) - second, 0.0)


def as_said(record: Record, second: float) -> float | None:
    """Return the time left that the service said last, less the time since; the middle of its range."""
    said = [(at, data["seconds_left"]) for at, _, data in record.events if at <= second and "seconds_left" in data]
    if not said:
        return by_elapsed(record, second)
    at, (least, most) = said[-1]
    return max(math.sqrt(max(least, 1.0) * max(most, 1.0)) - (second - at), 0.0)


def by_pace(record: Record, second: float) -> float | None:
    """Return the time left by the function of now, from the parts and the progress of the record."""
    work, part = WorkRecord(), None
    for at, kind, data in record.events:
        if kind != "progress" or at > second:
            continue
        if "part" in data and data["part"] != part:
            part = data["part"]
            work.begin_part(at, *part)
        work.report(at, data["progress"])
    left = work.seconds_left(second, record.expected)
    return None if left is None else left[0]


WAYS: Final[Mapping[str, Callable[[Record, float], float | None]]] = {
    "progress and elapsed time": by_elapsed,
    "as said": as_said,
    "pace of the part": by_pace,
}


def right_share(record: Record, way: Callable[[Record, float], float | None]) -> float:
    """Return the share of a record's moments at which the time left was right."""
    right = 0
    for second in record.moments:
        left, truth = way(record, second), record.seconds - second
        if left is not None:
            right += abs(left - truth) <= LEAST_ERROR or truth / WITHIN <= left <= truth * WITHIN
    return right / len(record.moments)


def main(arguments: Sequence[str]) -> int:
    if arguments[0] == "record":
        folder = Path(arguments[1])
        folder.mkdir(parents=True, exist_ok=True)
        with sample_service() as service:
            add_small_model(service)
            for name in arguments[2:] or [each + end for each in _JOBS for end in ("", LOADED)]:
                record(service.client, folder, name)
        return 0
    records = [Record(**json.loads(file.read_text())) for file in sorted(Path(arguments[0]).glob("*.json"))]
    shares = {way: [right_share(each, function) for each in records] for way, function in WAYS.items()}
    rows = [
        [each.name, f"{each.seconds:.0f}", *(f"{shares[way][place]:.0%}" for way in WAYS)]
        for place, each in enumerate(records)
    ]
    held = [f"{sum(share >= HELD for share in each)} of {len(records)}" for each in shares.values()]
    print(table(["job", "seconds", *WAYS], [*rows, [f"right at {HELD:.0%} of moments", "", *held]]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
