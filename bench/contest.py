"""The contest's cells: each contender prunes the same model on the same tokens, one evaluator reads what it saved."""

import hashlib
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.cells import CACHE, Program, cell_key, own_program, recall, remember, run
from bench.machine import describe_machine


@dataclass(frozen=True)
class Job:
    """What all contenders do. Sparsity is one half throughout."""

    method: str
    pattern: str

    @property
    def title(self) -> str:
        return f"{self.method} {'50 %' if self.pattern == 'unstructured' else self.pattern}"


@dataclass(frozen=True)
class Contender:
    """A program and what it is told beyond the job."""

    title: str
    program: Program
    options: dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """The ground: model, tokens of both uses, threads. `fresh` measures again what was measured before."""

    model: Path
    calibration: Path
    evaluation: Path
    threads: int
    fresh: bool

    def content(self) -> dict[str, str]:
        """Hashes of what the figures depend on."""
        files = {each.name: each for each in [*self.model.glob("*.safetensors"), self.calibration, self.evaluation]}
        hashes = {}
        for name, file in sorted(files.items()):
            with file.open("rb") as stream:
                hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        return hashes


@dataclass(frozen=True)
class Figures:
    """One contender's run of one job. `seconds` is the whole process, `processor_seconds` what all its threads worked,
    `prune_seconds` the pruning without loading and saving; sizes in bytes."""

    seconds: float
    processor_seconds: float
    prune_seconds: float
    peak_bytes: int
    forward_dtype: str
    perplexity: float
    sparsity: float
    measured: str


def contend(job: Job, contender: Contender, stage: Stage, content: dict[str, str]) -> Figures | None:
    """Figures of one cell, from the cache where they are there; None where the contender does not offer the job.

    Raises CellFailed.
    """
    spec = {
        "model": str(stage.model),
        "tokens": str(stage.calibration),
        "method": job.method,
        "pattern": job.pattern,
        "sparsity": 0.5,
        "threads": stage.threads,
        **contender.options,
    }
    evaluator = own_program("bench.evaluate_cell")
    key = cell_key(contender.program, spec | {"content": content, "evaluator": evaluator.code}, describe_machine())
    known = None if stage.fresh else recall(key)
    if known is not None:
        return Figures(**known) if known.get("offered", True) else None
    output = CACHE / "checkpoints" / key
    shutil.rmtree(output, ignore_errors=True)
    try:
        pruned = run(contender.program, spec | {"output": str(output)}, key)
        if not pruned.result.get("offered", True):
            remember(key, {"offered": False})
            return None
        judged = run(evaluator, evaluation_spec(stage, output), f"{key}-evaluation")
    finally:
        shutil.rmtree(output, ignore_errors=True)
    figures = Figures(
        seconds=pruned.seconds,
        processor_seconds=pruned.processor_seconds,
        prune_seconds=pruned.result["prune_seconds"],
        peak_bytes=pruned.peak_bytes,
        forward_dtype=pruned.result["forward_dtype"],
        perplexity=judged.result["perplexity"],
        sparsity=judged.result["sparsity"],
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    remember(key, asdict(figures))
    return figures


def dense_perplexity(stage: Stage, content: dict[str, str]) -> float:
    """The unpruned model on the same windows, by the same evaluator."""
    evaluator = own_program("bench.evaluate_cell")
    spec = evaluation_spec(stage, stage.model)
    key = cell_key(evaluator, spec | {"content": content}, describe_machine())
    known = None if stage.fresh else recall(key)
    if known is None:
        known = run(evaluator, spec, key).result
        remember(key, known)
    return float(known["perplexity"])


def evaluation_spec(stage: Stage, model: Path) -> dict[str, Any]:
    return {"model": str(model), "tokens": str(stage.evaluation), "threads": stage.threads}
