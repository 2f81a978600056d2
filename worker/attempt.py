"""One attempt at a job: its stages in order, up to a stored artifact."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from core.artifacts import finalise
from core.artifacts.store import Store, StoredFile, artifact_prefix
from core.catalogue.methods import get_method
from core.catalogue.per_layer import MODELLING_FILE
from core.errors import GateMissed, OutOfMemory, SecateurError
from core.jobs.estimates import compare
from core.jobs.gates import evaluate_gates
from core.jobs.queue import Claim
from core.jobs.schemas import Gates
from core.jobs.states import Stage
from core.settings import Settings
from worker.cache import folder_bytes
from worker.protocol import (
    JobSpec,
    LogMessage,
    MeasureSpec,
    Message,
    MetricMessage,
    PackSpec,
    ProgressMessage,
    PruneSpec,
    RecoverSpec,
    SensitivitySpec,
    Spec,
    StageMessage,
    VerifySpec,
)
from worker.recording import Recorder
from worker.recovery import add_recovery, recover_spec
from worker.runner_process import run_task
from worker.sources import Sources
from worker.targets import add_target, search_spec
from worker.task_accuracy import TaskAccuracy

PROGRESS_SHARES = {
    "generate_text": (0.0, 0.0),
    "search": (0.0, 0.0),
    "sensitivity": (0.0, 0.99),
    "prune": (0.0, 0.90),
    "measure": (0.90, 0.92),
    "tasks": (0.92, 0.95),
    "verify": (0.95, 0.98),
    "pack": (0.98, 0.99),
}
"""Which part of the job's progress a runner's task covers; the store stage does the rest."""

SHARES_WITH_RECOVERY = PROGRESS_SHARES | {"prune": (0.0, 0.40), "recover": (0.40, 0.90)}


@dataclass(frozen=True)
class Outcome:
    """What an attempt that ran to its end leaves. `missed` is set where all is well but a gate was not kept."""

    metrics: dict[str, Any]
    report: dict[str, Any]
    files: list[StoredFile]
    missed: GateMissed | None
    measured: dict[str, Any]
    """What it took, under the names of `core.jobs.needs.Needs`."""


class Attempt:
    """Runs the stages. What goes wrong is raised as a `SecateurError`; whatever `on_wait` raises comes through."""

    def __init__(
        self,
        claim: Claim,
        settings: Settings,
        recorder: Recorder,
        store: Store,
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
        self._prefix = artifact_prefix(claim.job_id, claim.attempt)
        self._folder = (settings.work_root / claim.job_id / f"attempt-{claim.attempt}").resolve()

    def run(self) -> Outcome:
        with Sources(
            self._settings,
            self._store,
            folder=self._folder,
            run_runner=self._task,
            on_message=self._tell,
            on_wait=self._on_wait,
        ) as sources:
            spec = self._prune_spec(sources)
            if get_method(self._claim.body["method"]).measures:
                return self._measure(SensitivitySpec.model_validate(spec.model_dump(exclude={"task"})))
            questions = [sources.questions(task) for task in self._claim.tasks]
            training = recover_spec(self._claim, sources, spec, self._folder / "artifact")
            return self._run(spec, TaskAccuracy(spec, questions, self._settings, sources.cache), training)

    def _run(self, spec: PruneSpec, accuracy: TaskAccuracy, training: RecoverSpec | None) -> Outcome:
        found = self._search(spec)
        if found is not None:
            spec = spec.model_copy(update={"recipe": spec.recipe | {"sparsity": found["sparsity"]}})
        pruned = self._task(spec)
        metrics: dict[str, Any] = pruned["metrics"]
        report: dict[str, Any] = pruned["report"]
        expected = Path(pruned["expected"])
        _keep_peak(report, "search", found or {})
        if training is not None:
            recovered = self._task(training)
            add_recovery(metrics, report, recovered)
            _keep_peak(report, "recover", recovered)
            expected = Path(recovered["expected"])
            spec = spec.model_copy(update={"artifact": training.artifact})
        self._recorder.enter("evaluate")
        metrics["latency"] = self._latency(spec, report, needed=found is not None)
        metrics |= accuracy.compare(self._task, spec.made, report)
        missed = evaluate_gates(Gates.model_validate(self._claim.body["gates"]), metrics)
        self._recorder.enter("verify")
        verified = self._task(
            VerifySpec(
                artifact=spec.artifact,
                expected=expected,
                device=self._settings.device,
                threads=self._settings.threads,
            )
        )
        report["artifact"] = verified.pop("model")
        _keep_peak(report, "verify", verified)
        report["verification"] = verified
        if verified.get("trust_remote_code"):
            report.setdefault("notes", []).append(
                "Layers differ in shape: from_pretrained needs trust_remote_code=True, which runs this folder's own "
                f"{MODELLING_FILE}."
            )
        self._recorder.enter("store")
        if self._claim.body["output"]["format"] == "packed":
            report["packed"] = self._task(PackSpec(artifact=spec.artifact))
            metrics["bytes"]["packed"] = report["packed"]["bytes"]
        missed_target = add_target(self._claim.body, metrics, report, found)
        outcome = self._publish(spec, metrics, report, missed or missed_target)
        accuracy.keep_pruned(outcome.files, report)
        return self._ended(outcome)

    def _measure(self, spec: SensitivitySpec) -> Outcome:
        """Figures in place of a model: nothing is verified, timed or gated."""
        found = self._task(spec)
        self._recorder.enter("store")
        return self._ended(self._publish(spec, found["metrics"], found["report"], None))

    def _publish(
        self, spec: JobSpec, metrics: dict[str, Any], report: dict[str, Any], missed: GateMissed | None
    ) -> Outcome:
        """Complete the report, write card and manifest, and store the artifact."""
        self._add_seconds(metrics)
        measured = self._measured(spec, report, metrics)
        report["estimate"] = compare(self._claim.estimate, measured)
        report["seconds"] = dict(self._recorder.stage_seconds)
        report["gates"] = {"missed": missed.message if missed else None, **self._claim.body["gates"]}
        report["metrics"] = metrics
        finalise(spec.artifact, recipe=self._claim.body, report=report)
        report["recipe"] = self._claim.body  # beside the report in the artifact's manifest, part of it over REST
        files = self._store.publish(spec.artifact, self._prefix, watch=self._on_wait)
        return Outcome(metrics, report, files, missed, measured)

    def _ended(self, outcome: Outcome) -> Outcome:
        """With the time storing took."""
        self._add_seconds(outcome.metrics)
        outcome.measured["seconds"] = outcome.metrics["seconds"]["total"]
        return outcome

    def _prune_spec(self, sources: Sources) -> PruneSpec:
        """A folder for this attempt, and the fetch stage."""
        claim = self._claim
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        model = sources.model(claim.model)
        method = get_method(claim.body["method"])
        asked = claim.calibration if method.prunes or method.measures else None
        calibration = asked and sources.text(asked, model, "calibration.dataset")
        evaluation = [sources.text(text, model, "evaluation.datasets") for text in claim.evaluation]
        self._on_wait()
        return PruneSpec(
            job=claim.job_id,
            attempt=claim.attempt,
            recipe=claim.body,
            model=model,
            calibration=calibration,
            evaluation=evaluation,
            work=self._folder,
            previous=self._previous(),
            artifact=self._folder / ("pruned" if claim.recovery else "artifact"),
            device=self._settings.device,
            threads=self._settings.threads,
            activation_budget_bytes=self._settings.activation_budget_bytes,
        )

    def _previous(self) -> Path | None:
        """The newest earlier attempt within reach that finished a block, else that chose what goes: one that died
        before is no help.
        """
        folders = [self._folder.with_name(f"attempt-{number}") for number in self._claim.previous_attempts]
        for saved in ("boundary-*/state.json", "cut.json"):
            for folder in folders:
                if any(folder.glob(saved)):
                    return folder
        return None

    @property
    def _timed_length(self) -> int:
        """Tokens of the sequence by which models are timed."""
        parts = (self._claim.body["calibration"], self._claim.body["evaluation"])
        return next((part["sequence_length"] for part in parts if part and part["sequence_length"]), 512)

    def _search(self, spec: PruneSpec) -> dict[str, Any] | None:
        """What sparsity a latency target means; None where the job has none."""
        search = search_spec(self._claim, spec, sequence_length=self._timed_length)
        return None if search is None else self._task(search)

    def _latency(self, spec: PruneSpec, report: dict[str, Any], *, needed: bool) -> dict[str, Any] | None:
        """Dense against pruned; None, with a note in the report, where the two do not fit in memory in turn and it is
        not `needed`.
        """
        try:
            measured = self._task(
                MeasureSpec(
                    dense=spec.model.place,
                    pruned=spec.made,
                    sequence_length=self._timed_length,
                    device=self._settings.device,
                    threads=self._settings.threads,
                )
            )
        except SecateurError as error:
            if needed or error.problem()["code"] != OutOfMemory.code:
                raise
            report.setdefault("notes", []).append(f"Latency was not measured: {error.message}")
            return None
        report.setdefault("notes", []).extend(measured.get("notes", []))
        _keep_peak(report, "measure", measured)
        latency: dict[str, Any] = measured["latency"]
        return latency

    def _tell(self, message: Message) -> None:
        """A line for people, from runner or fetcher."""
        assert isinstance(message, LogMessage), message
        self._recorder.event("log", {"level": message.level, "message": message.message})

    def _task(self, spec: Spec, part: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
        """`part` is what the task covers of its share of the job's progress."""
        shares = SHARES_WITH_RECOVERY if self._claim.recovery else PROGRESS_SHARES
        start, end = shares[spec.task]
        low, high = (start + (end - start) * place for place in part)

        def on_message(message: Message) -> None:
            match message:
                case StageMessage():
                    self._recorder.enter(cast(Stage, message.stage))
                case ProgressMessage():
                    done = low + (high - low) * min(max(message.progress, 0.0), 1.0)
                    self._recorder.progress(done, message.model_dump(include={"block", "blocks"}, exclude_none=True))
                case LogMessage():
                    self._tell(message)
                case MetricMessage():
                    self._recorder.event("metric", {"name": message.name, "step": message.step, "value": message.value})

        return run_task(
            spec,
            log=self._folder / "runner.log",
            on_message=on_message,
            on_wait=self._on_wait,
            grace_seconds=self._settings.cancel_grace_seconds,
            command=self._runner,
            modules=self._folder / "modules",
        )

    def _measured(self, spec: JobSpec, report: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
        """What this attempt took so far, in the terms it was estimated in."""
        folders = [self._folder]
        if spec.model.path.is_relative_to(self._settings.cache_root.resolve()):
            folders.append(spec.model.path)
        if self._store.folder(self._prefix) is not None:
            folders.append(spec.artifact)  # to be copied there
        peaks = [report["peak_memory"], *report.get("peak_memory_of_other_processes", {}).values()]
        on_device = [peak["device"] for peak in peaks if "device" in peak]
        return {
            "peak_memory_bytes": max(peak["resident"] for peak in peaks),
            "peak_device_memory_bytes": max(on_device, default=None),
            "disk_bytes": sum(map(folder_bytes, folders)),
            "seconds": metrics["seconds"]["total"],
        }

    def _add_seconds(self, metrics: dict[str, Any]) -> None:
        self._recorder.leave()
        seconds = self._recorder.stage_seconds
        metrics["seconds"] = {**metrics.get("seconds", {}), **seconds, "total": sum(seconds.values())}


def _keep_peak(report: dict[str, Any], task: str, result: dict[str, Any]) -> None:
    """The peak memory of a process of its own goes beside the prune stage's, not into it."""
    if "peak_memory" in result:
        report.setdefault("peak_memory_of_other_processes", {})[task] = result.pop("peak_memory")
