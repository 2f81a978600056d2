"""A job whose worker is the test, and what it may come to."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.jobs.queue import append_event, claim, finish_failed, finish_succeeded, set_progress, set_stage
from core.storage import Store, artifact_prefix

Sessions = sessionmaker[Session]
METRICS: dict[str, Any] = {
    "perplexity": {"numbers": {"dense": 25.04, "pruned": 27.41, "ratio": 1.0946, "sequence_length": 32}},
    "sparsity": {"prunable": 0.5, "model": 0.4},
    "parameters": {"dense": 1000, "nonzero": 600},
    "bytes": {"dense": 310_000, "artifact": 310_000, "packed": 100_000},
    "latency": {"dense_ms": 10.0, "pruned_ms": 9.9, "spread": 0.08, "sequence_length": 32, "device": "cpu"},
    "seconds": {"total": 12.5},
    "peak_memory_bytes": 2**28,
}
REPORT: dict[str, Any] = {
    "layers": [
        {"name": f"model.layers.{layer}.{name}", "layer": layer, "out_features": 8, "in_features": 8, "target": 0.5,
         "zeros": 32, "sparsity": 0.5, "reconstruction_error": 0.1 + 0.05 * layer}
        for layer in range(2) for name in ("self_attn.q_proj", "mlp.up_proj")
    ],
    "notes": ["A note with <b>markup</b>."],
    "generations": [{"prompt": "Once <i>upon</i>", "dense": "a time", "pruned": None}],
}  # fmt: skip


class Running:
    """A job whose worker is the test."""

    def __init__(self, sessions: Sessions, store: Store, job: str) -> None:
        self.sessions, self.store, self.id = sessions, store, job
        self.attempt = 0

    def _write(self, write: Callable[[Session], object]) -> None:
        with transaction(self.sessions) as session:
            assert write(session)

    def begin(self) -> "Running":
        self._write(lambda session: claim(session, queue="default", worker_id="worker_1", lease_seconds=600))
        self.attempt += 1
        return self

    def stage(self, stage: Any) -> None:
        self._write(lambda session: set_stage(session, self.id, self.attempt, stage))

    def progress(self, progress: float, **data: Any) -> None:
        self._write(lambda session: set_progress(session, self.id, self.attempt, progress, data))

    def log(self, message: str) -> None:
        data = {"level": "info", "message": message}
        self._write(lambda session: append_event(session, self.id, self.attempt, "log", data))

    def metric(self, name: str, step: int, value: float) -> None:
        data = {"name": name, "step": step, "value": value}
        self._write(lambda session: append_event(session, self.id, self.attempt, "metric", data))

    def succeed(
        self,
        folder: Path,
        metrics: Mapping[str, Any] = METRICS,
        report: Mapping[str, Any] = REPORT,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """`files` are those of the artifact beside weights and manifest."""
        folder.mkdir()
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "secateur.json").write_text("{}")
        stored = self.store.publish(folder, artifact_prefix(self.id, self.attempt))
        self._write(
            lambda session: finish_succeeded(
                session, self.id, self.attempt, metrics=metrics, report=report, files=stored, stages={"prune": 3.0}
            )
        )

    def fail(self, code: str, message: str, **measured: Any) -> None:
        """`measured` are the metrics and report of a job that missed a gate."""
        problem = {"code": code, "message": message, "param": None, "retryable": False}
        self._write(lambda session: finish_failed(session, self.id, self.attempt, problem, **measured))
