"""Contests between pruners of one language model, in cells that take the same tokens.

Each contender prunes in a process of its own, and another process judges what it saved. Loads no torch.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.cells import CACHE, Cell, Measured, Program, cell_key, engine_program, foreign_program, run
from bench.machine import describe_machine
from bench.peer import peer_environment
from bench.windows import Windows, model_hash

PEER = "llm-compressor"
PEER_BATCH_TOKENS = 4096
"""Tokens of the peer's calibration batches: as many as Secateur's micro-batches. Its default of one sequence is slower
and needs less memory."""


@dataclass(frozen=True)
class Ground:
    """Ground that all cells of a bench share: the model, the text to calibrate on, and what models are judged by.

    `texts` are windows of tokens, `tasks` questions, both by name.
    """

    model: Path
    calibration: Path
    texts: Mapping[str, Path]
    tasks: Mapping[str, Path]
    threads: int
    _hashes: dict[Path, str] = field(default_factory=dict)

    def hash(self, path: Path) -> str:
        """Return the hash of a file, or of a model's folder; taken once."""
        if path not in self._hashes:
            self._hashes[path] = model_hash(path) if path.is_dir() else _file_hash(path)
        return self._hashes[path]

    def hashes(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Return the hashes of files by name."""
        return {name: self.hash(file) for name, file in files.items()}

    def judge(
        self, evaluator: Program, model: Path, key: str, texts: Mapping[str, Path], task_limit: int | None = None
    ) -> Measured:
        """Run an evaluator on a checkpoint: perplexity on texts, and the tasks where there is a limit of questions."""
        spec = {
            "model": str(model),
            "texts": {name: str(file) for name, file in texts.items()},
            "tasks": {name: str(file) for name, file in self.tasks.items()} if task_limit else {},
            "task_limit": task_limit,
            "threads": self.threads,
        }
        return run(evaluator, spec, f"{key}-evaluation")


@dataclass(frozen=True)
class Job:
    """What all contenders do."""

    method: str
    pattern: str
    sparsity: float = 0.5


@dataclass(frozen=True)
class Contender:
    """A program and what it is told beyond the job."""

    title: str
    program: Program
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Contest:
    """A contest that is prepared: the cell of a title and a body, None where nobody does it, others, and its facts."""

    cell: Callable[[str, Mapping[str, Any]], Cell | None]
    beside: Mapping[str, Cell]
    facts: Sequence[str]


def own_contender(title: str, parameters: Mapping[str, Any]) -> Contender:
    """Return Secateur's engine with a method's parameters."""
    return Contender(title, engine_program("bench.prune_cell:prune"), {"parameters": dict(parameters)})


def peer_contender(length: int) -> tuple[Contender, str]:
    """Return llm-compressor in its environment, which is installed where it is not there, and its releases.

    Its calibration batches have as many sequences as PEER_BATCH_TOKENS has of this length.
    """
    python, release = peer_environment("llmcompressor", ("llmcompressor", "torch", "transformers"))
    driver = foreign_program(python, Path(__file__).parent / "llmcompressor_driver.py", release)
    size = max(1, PEER_BATCH_TOKENS // length)
    return Contender(PEER, driver, {"batch_size": size, "block_size": 128, "damping": 0.01}), release


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


def contest_cell(
    title: str, contender: Contender, job: Job, ground: Ground, windows: Windows, *, task_limit: int | None = None
) -> Cell:
    """Return the cell of a contender that does a job, calibrated on these windows, and is asked so many questions."""
    evaluator, spec = _evaluator(), asdict(job) | dict(contender.options) | {"threads": ground.threads}
    facts = _judged_by(ground, task_limit) | {"calibration": windows.file.parent.name, "evaluator": evaluator.code}
    key = cell_key(contender.program, spec | facts, describe_machine())

    def work() -> dict[str, Any]:
        tokens = windows.written(ground.threads)
        with checkpoint_place(key) as output:
            paths = {"model": str(ground.model), "tokens": str(tokens), "output": str(output)}
            pruned = run(contender.program, spec | paths, key)
            if not pruned.result.get("offered", True):
                return {"offered": False}
            judged = ground.judge(evaluator, output, key, ground.texts, task_limit).result
        return asdict(
            Figures(
                seconds=pruned.seconds,
                processor_seconds=pruned.processor_seconds,
                prune_seconds=pruned.result["prune_seconds"],
                peak_bytes=pruned.peak_bytes,
                forward_dtype=pruned.result["forward_dtype"],
                perplexity=judged["perplexity"],
                sparsity=judged["sparsity"],
                tasks=judged["tasks"],
                measured=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )

    return Cell(title, key, work)


def dense_cell(ground: Ground, task_limit: int | None = None) -> Cell:
    """Return the cell of the unpruned model, judged as the pruned ones are."""
    evaluator = _evaluator()
    key = cell_key(evaluator, _judged_by(ground, task_limit) | {"threads": ground.threads}, describe_machine())
    return Cell(
        "the dense model", key, lambda: ground.judge(evaluator, ground.model, key, ground.texts, task_limit).result
    )


@contextmanager
def checkpoint_place(key: str) -> Iterator[Path]:
    """Give a place for a checkpoint for a while, with nothing in it yet."""
    output = (CACHE / "checkpoints" / key).absolute()
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield output
    finally:
        for left in output.parent.glob(f"{key}*"):  # and what was in work, where the process was ended
            shutil.rmtree(left, ignore_errors=True)


def peer_or_nothing(length: int) -> tuple[Contender | None, Sequence[str]]:
    """Return the peer and its releases; nothing, and say why, where it cannot be installed."""
    try:
        peer, release = peer_contender(length)
    except subprocess.CalledProcessError as failure:
        print(f"{PEER} is left out, it cannot be installed: {failure}", file=sys.stderr)
        return None, []
    return peer, [release]


def _evaluator() -> Program:
    return engine_program("bench.evaluate_cell:evaluate")


def _judged_by(ground: Ground, task_limit: int | None) -> dict[str, Any]:
    tasks = ground.hashes(ground.tasks) if task_limit else {}
    hashes = {"model": ground.hash(ground.model), "texts": ground.hashes(ground.texts), "tasks": tasks}
    return hashes | {"task_limit": task_limit}


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
