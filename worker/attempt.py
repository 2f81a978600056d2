"""One attempt at a job: its stages in order, up to a stored artifact."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from core.artifacts import finalise
from core.artifacts.store import LocalStore, StoredFile, artifact_prefix
from core.errors import GateMissed, OutOfMemory, SecateurError
from core.jobs.gates import evaluate_gates
from core.jobs.queue import Claim
from core.jobs.schemas import Gates
from core.jobs.states import Stage
from core.settings import Settings
from worker.protocol import (
    LogMessage,
    MeasureSpec,
    Message,
    MetricMessage,
    ModelSource,
    ProgressMessage,
    PruneSpec,
    Spec,
    StageMessage,
    VerifySpec,
)
from worker.recording import Recorder
from worker.runner_process import run_task
from worker.sources import fetch_model, fetch_text

PROGRESS_SHARES = {"prune": (0.0, 0.90), "measure": (0.90, 0.95), "verify": (0.95, 0.98)}
"""Which part of the job's progress a runner's task covers; the store stage does the rest."""


@dataclass(frozen=True)
class Outcome:
    """What an attempt that ran to its end leaves. `missed` is set where all is well but a gate was not kept."""

    metrics: dict[str, Any]
    report: dict[str, Any]
    files: list[StoredFile]
    missed: GateMissed | None


class Attempt:
    """Runs the stages. What goes wrong is raised as a `SecateurError`; whatever `on_wait` raises comes through."""

    def __init__(
        self,
        claim: Claim,
        settings: Settings,
        recorder: Recorder,
        store: LocalStore,
        *,
        runner: Sequence[str],
        on_wait: Callable[[], None],
    ) -> None:
        self._claim = claim
        self._settings = settings
        self._recorder = recorder
        self._store = store
        self._runner = runner
        self._on_wait = on_wait
        self._folder = (settings.work_root / claim.job_id / f"attempt-{claim.attempt}").resolve()

    def run(self) -> Outcome:
        spec = self._prune_spec()
        pruned = self._task(spec)
        metrics: dict[str, Any] = pruned["metrics"]
        report: dict[str, Any] = pruned["report"]
        self._recorder.enter("evaluate")
        metrics["latency"] = self._latency(spec, report)
        missed = evaluate_gates(Gates.model_validate(self._claim.body["gates"]), metrics)
        self._recorder.enter("verify")
        verified = self._task(
            VerifySpec(
                artifact=spec.artifact,
                expected=Path(pruned["expected"]),
                device=self._settings.device,
                threads=self._settings.threads,
            )
        )
        _keep_peak(report, "verify", verified)
        report["verification"] = verified
        self._recorder.enter("store")
        self._add_seconds(metrics)
        report["seconds"] = dict(self._recorder.stage_seconds)
        report["gates"] = {"missed": missed.message if missed else None, **self._claim.body["gates"]}
        report["metrics"] = metrics
        finalise(spec.artifact, recipe=self._claim.body, report=report)
        report["recipe"] = self._claim.body  # beside the report in the artifact's manifest, part of it over REST
        files = self._store.publish(spec.artifact, artifact_prefix(self._claim.job_id, self._claim.attempt))
        self._add_seconds(metrics)
        return Outcome(metrics, report, files, missed)

    def _prune_spec(self) -> PruneSpec:
        """The fetch stage, and a folder for this attempt."""
        claim = self._claim
        model = fetch_model(claim)
        calibration = claim.calibration and fetch_text(claim.calibration, "calibration.dataset")
        evaluation = [fetch_text(text, "evaluation.datasets") for text in claim.evaluation]
        self._on_wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return PruneSpec(
            job=claim.job_id,
            attempt=claim.attempt,
            recipe=claim.body,
            model=ModelSource(path=model.path.resolve(), name=model.name, revision=model.revision),
            calibration=calibration,
            evaluation=evaluation,
            work=self._folder,
            previous=self._previous(),
            artifact=self._folder / "artifact",
            device=self._settings.device,
            threads=self._settings.threads,
            activation_budget_bytes=self._settings.activation_budget_bytes,
        )

    def _previous(self) -> Path | None:
        """The newest earlier attempt within reach that finished a block: one that died before is no help."""
        for number in self._claim.previous_attempts:
            folder = self._folder.with_name(f"attempt-{number}")
            if any(folder.glob("boundary-*/state.json")):
                return folder
        return None

    def _latency(self, spec: PruneSpec, report: dict[str, Any]) -> dict[str, Any] | None:
        """Dense against pruned; None, with a note in the report, where the two do not fit in memory in turn."""
        lengths = [
            part["sequence_length"]
            for part in (self._claim.body["calibration"], self._claim.body["evaluation"])
            if part
        ]
        try:
            measured = self._task(
                MeasureSpec(
                    dense=spec.model.path,
                    pruned=spec.artifact,
                    sequence_length=next((length for length in lengths if length), 512),
                    device=self._settings.device,
                    threads=self._settings.threads,
                )
            )
        except SecateurError as error:
            if error.problem()["code"] != OutOfMemory.code:
                raise
            report.setdefault("notes", []).append(f"Latency was not measured: {error.message}")
            return None
        report.setdefault("notes", []).extend(measured.get("notes", []))
        _keep_peak(report, "measure", measured)
        latency: dict[str, Any] = measured["latency"]
        return latency

    def _task(self, spec: Spec) -> dict[str, Any]:
        low, high = PROGRESS_SHARES[spec.task]

        def on_message(message: Message) -> None:
            match message:
                case StageMessage():
                    self._recorder.enter(cast(Stage, message.stage))
                case ProgressMessage():
                    done = low + (high - low) * min(max(message.progress, 0.0), 1.0)
                    self._recorder.progress(done, {"block": message.block, "blocks": message.blocks})
                case LogMessage():
                    self._recorder.event("log", {"level": message.level, "message": message.message})
                case MetricMessage():
                    self._recorder.event("metric", {"name": message.name, "step": message.step, "value": message.value})

        return run_task(
            spec,
            log=self._folder / "runner.log",
            on_message=on_message,
            on_wait=self._on_wait,
            grace_seconds=self._settings.cancel_grace_seconds,
            command=self._runner,
        )

    def _add_seconds(self, metrics: dict[str, Any]) -> None:
        self._recorder.leave()
        seconds = self._recorder.stage_seconds
        metrics["seconds"] = {**metrics.get("seconds", {}), **seconds, "total": sum(seconds.values())}


def _keep_peak(report: dict[str, Any], task: str, result: dict[str, Any]) -> None:
    """The peak memory of a process of its own goes beside the prune stage's, not into it."""
    if "peak_memory" in result:
        report.setdefault("peak_memory_of_other_processes", {})[task] = result.pop("peak_memory")
