"""The contest's cells: each contender prunes the same model on the same tokens, one evaluator reads what it saved."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.cells import CACHE, Program, cell_key, engine_program, foreign_program, recall, remember, run
from bench.machine import describe_machine
from bench.peer import peer_environment

PEER = "llm-compressor"
PEER_BATCH_TOKENS = 4096
"""Tokens of the peer's calibration batches: as many as Secateur's micro-batches. Its default of one sequence is slower
and needs less memory."""


@dataclass(frozen=True)
class Job:
    """What all contenders do."""

    method: str
    pattern: str
    sparsity: float = 0.5

    @property
    def title(self) -> str:
        return f"{self.method} {target_title(self.pattern, self.sparsity)}"


def target_title(pattern: str, sparsity: float) -> str:
    """`50 %`, or `2:4`."""
    return f"{100 * sparsity:g} %" if pattern == "unstructured" else pattern


@dataclass(frozen=True)
class Contender:
    """A program and what it is told beyond the job."""

    title: str
    program: Program
    options: dict[str, Any]


def own_contender(title: str, parameters: Mapping[str, Any]) -> Contender:
    """Secateur's engine with a method's parameters."""
    return Contender(title, engine_program("bench.prune_cell"), {"parameters": dict(parameters)})


def peer_contender(length: int, *, batch: int | None = None, upgrade: bool = False) -> tuple[Contender, str]:
    """llm-compressor in its environment, which is installed where it is not there, and its releases. `batch`: sequences
    of a calibration batch, None: as many as PEER_BATCH_TOKENS has of this length.
    """
    python, release = peer_environment("llmcompressor", ("llmcompressor", "torch", "transformers"), upgrade=upgrade)
    driver = foreign_program(python, Path(__file__).parent / "llmcompressor_driver.py", release)
    size = batch or max(1, PEER_BATCH_TOKENS // length)
    return Contender(PEER, driver, {"batch_size": size, "block_size": 128, "damping": 0.01}), release


@dataclass(frozen=True)
class Stage:
    """The ground: model, calibration tokens, the texts and zero-shot tasks the outcome is judged by, threads. `fresh`
    measures again what was measured before; `task_limit` is the number of questions of each task.
    """

    model: Path
    calibration: Path
    texts: Mapping[str, Path]
    threads: int
    fresh: bool = False
    tasks: Mapping[str, Path] = field(default_factory=dict)
    task_limit: int | None = None

    def content(self) -> dict[str, str]:
        """Hashes of what the figures depend on."""
        files = {each.name: each for kind in ("safetensors", "json") for each in self.model.glob(f"*.{kind}")}
        files["calibration"] = self.calibration
        files |= {f"text {name}": file for name, file in self.texts.items()}
        files |= {f"task {name}": file for name, file in self.tasks.items()}
        hashes = {}
        for name, file in sorted(files.items()):
            with file.open("rb") as stream:
                hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        return hashes


@dataclass(frozen=True)
class Figures:
    """One contender's run of one job. `seconds` is the whole process, `processor_seconds` what all its threads worked,
    `prune_seconds` the pruning without loading and saving; sizes in bytes. `perplexity` by text, `tasks` as
    `measure_tasks` gives them.
    """

    seconds: float
    processor_seconds: float
    prune_seconds: float
    peak_bytes: int
    forward_dtype: str
    perplexity: dict[str, float]
    sparsity: float
    tasks: dict[str, dict[str, float]]
    measured: str


@dataclass(frozen=True)
class Dense:
    """The unpruned model, judged as the pruned ones are."""

    perplexity: dict[str, float]
    tasks: dict[str, dict[str, float]]


def is_measured(job: Job, contender: Contender, stage: Stage, content: dict[str, str]) -> bool:
    """Whether `contend` would run nothing."""
    return not stage.fresh and recall(_key(job, contender, stage, content)) is not None


def contend(job: Job, contender: Contender, stage: Stage, content: dict[str, str]) -> Figures | None:
    """Figures of one cell, from the cache where they are there; None where the contender does not offer the job.

    Raises CellFailed.
    """
    key = _key(job, contender, stage, content)
    known = None if stage.fresh else recall(key)
    if known is not None:
        return Figures(**known) if known.get("offered", True) else None
    output = CACHE / "checkpoints" / key
    shutil.rmtree(output, ignore_errors=True)
    spec = _work(job, contender, stage) | {"model": str(stage.model), "tokens": str(stage.calibration)}
    try:
        pruned = run(contender.program, spec | {"output": str(output)}, key)
        if not pruned.result.get("offered", True):
            remember(key, {"offered": False})
            return None
        judged = run(_evaluator(), _evaluation(stage, output), f"{key}-evaluation")
    finally:
        for left in output.parent.glob(f"{key}*"):  # and what was in work, where the process was ended
            shutil.rmtree(left, ignore_errors=True)
    figures = Figures(
        seconds=pruned.seconds,
        processor_seconds=pruned.processor_seconds,
        prune_seconds=pruned.result["prune_seconds"],
        peak_bytes=pruned.peak_bytes,
        forward_dtype=pruned.result["forward_dtype"],
        perplexity=judged.result["perplexity"],
        sparsity=judged.result["sparsity"],
        tasks=judged.result["tasks"],
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    remember(key, asdict(figures))
    return figures


def judge_dense(stage: Stage, content: dict[str, str]) -> Dense:
    """The unpruned model on the same texts and tasks, by the same evaluator; raises CellFailed."""
    evaluator = _evaluator()
    facts = {name: digest for name, digest in content.items() if name != "calibration"}
    spec = {"content": facts, "threads": stage.threads, "task_limit": stage.task_limit}
    key = cell_key(evaluator, spec, describe_machine())
    known = None if stage.fresh else recall(key)
    if known is None:
        known = run(evaluator, _evaluation(stage, stage.model), key).result
        remember(key, known)
    return Dense(known["perplexity"], known["tasks"])


def _work(job: Job, contender: Contender, stage: Stage) -> dict[str, Any]:
    """What a contender is told, but for the paths."""
    return asdict(job) | {"threads": stage.threads} | contender.options


def _key(job: Job, contender: Contender, stage: Stage, content: dict[str, str]) -> str:
    facts = {"content": content, "evaluator": _evaluator().code, "task_limit": stage.task_limit}
    return cell_key(contender.program, _work(job, contender, stage) | facts, describe_machine())


def _evaluator() -> Program:
    return engine_program("bench.evaluate_cell")


def _evaluation(stage: Stage, model: Path) -> dict[str, Any]:
    return {
        "model": str(model),
        "texts": {name: str(file) for name, file in stage.texts.items()},
        "tasks": {name: str(file) for name, file in stage.tasks.items()},
        "task_limit": stage.task_limit,
        "threads": stage.threads,
    }
