"""One attempt at a job: its stages in order, up to a stored artifact.

What a job does between fetch and verify depends on what its model is: `worker.supervisor.language_attempt`,
`worker.supervisor.classifier_attempt`. Here is what all have in common.
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from core.errors import GateMissed, OutOfMemory, SecateurError
from core.pipeline.messages import MeasureSpec, ModelPlace, ModelSource, Spec, VerifySpec
from core.pipeline.reports.manifest import finalise
from core.pipeline.reports.report import PeakMemory, Report, Verification
from core.service.jobs.estimates.resources import compare
from core.service.jobs.gates import evaluate_gates, gates_report, missed_gates
from core.service.jobs.queue import Claim
from core.service.sources.hub_tokens import find_access
from core.settings import Settings
from core.storage import Store, StoredFile, artifact_prefix
from secateur_wire.base import JsonObject
from secateur_wire.metrics import Latency, Metrics, Seconds
from secateur_wire.states import Stage
from worker.node_cache import folder_bytes
from worker.runner.client import run_task
from worker.runner.messages import AliveMessage, LogMessage, Message, MetricMessage, ProgressMessage, StageMessage
from worker.supervisor.export_stage import add_export
from worker.supervisor.inputs import JobInputs
from worker.supervisor.recorder import Recorder
from worker.supervisor.target_stage import add_target
from worker.supervisor.work_folders import WorkFolders


@dataclass(frozen=True)
class AttemptResult:
    """Results of an attempt that ran to its end. `missed` is set where only gates were not kept."""

    metrics: Metrics
    report: Report
    files: list[StoredFile]
    missed: GateMissed | None
    measured: dict[str, Any]
    """Resources it took, under the names of `core.service.jobs.estimates.resources.ResourceEstimate`."""


@dataclass(frozen=True)
class StageOutput:
    """Results of pruning, recovery and evaluation, before the reload check and the gates.

    `artifact` is its folder, `expected` what the reload check compares with, None where no model was made. `model` is
    where the pruned model's source lay. `keep` is called with the stored files.
    """

    metrics: Metrics
    report: Report
    artifact: Path
    expected: Path | None
    model: ModelSource
    search_result: JsonObject | None = None
    keep: Callable[[Sequence[StoredFile]], None] = lambda files: None


class Attempt(ABC):
    """Stages of an attempt, run in order. Errors are raised as a `SecateurError`, those of `on_wait` as they are.

    `shares` says which part of the job's progress each of the runner's tasks covers; the store stage does the rest.
    """

    @property
    @abstractmethod
    def shares(self) -> Mapping[str, tuple[float, float]]: ...

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
        self._doing: str | None = None
        self._folder = (settings.work_root / claim.job_id / f"attempt-{claim.attempt}").resolve()

    def run(self) -> AttemptResult:
        with WorkFolders(self._settings.work_root).locked(self._claim.job_id):
            return self._run()

    def _run(self) -> AttemptResult:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        team_id = self._claim.team_id
        with JobInputs(
            self._settings,
            self._store,
            team_id=team_id,
            find_access=lambda: self._recorder.read(partial(find_access, team_id=team_id, settings=self._settings)),
            folder=self._folder,
            run_runner=self._task,
            on_message=self._record_log,
            on_wait=self._wait,
        ) as inputs:
            return self._finish(self._make(inputs))

    @abstractmethod
    def _make(self, inputs: JobInputs) -> StageOutput:
        """Fetch, prune, recover and evaluate."""

    def _finish(self, output: StageOutput) -> AttemptResult:
        """Run the reload check, evaluate the gates, and store the artifact."""
        metrics, report = output.metrics, output.report
        if output.expected is not None:
            self._recorder.enter("verify")
            self._verify(output, output.expected)
        self._recorder.enter("store")
        add_export(self._task, self._claim.recipe.output.format, output.artifact, metrics, report)
        gates = self._claim.recipe.gates
        target = add_target(self._claim.recipe, metrics, report, output.search_result)
        results = [*evaluate_gates(gates, metrics), *([] if target is None else [target])]
        measured = self._measured(output, seconds=self._add_seconds(metrics))
        report.estimate = compare(self._claim.estimate, measured)
        report.seconds = dict(self._recorder.stage_seconds)
        report.gates = gates_report(gates, results)
        report.metrics = metrics
        finalise(output.artifact, recipe=self._claim.recipe, body=self._claim.body, report=report)
        report.recipe = self._claim.body  # beside the report in the artifact's manifest, part of it over REST
        self._doing = "storing the artifact"
        files = self._store.publish(output.artifact, self._prefix, watch=self._wait)
        output.keep(files)
        measured["seconds"] = self._add_seconds(metrics)
        return AttemptResult(metrics, report, files, missed_gates(results), measured)

    def _verify(self, output: StageOutput, expected: Path) -> None:
        """Have a fresh process open the artifact; what it found goes into the report."""
        verified = self._task(
            VerifySpec(
                artifact=output.artifact,
                expected=expected,
                modules=self._folder / "modules",
                device=self._settings.device,
                threads=self._settings.threads,
            )
        )
        output.report.artifact = verified.pop("model")
        keep_peak(output.report, "verify", verified)
        output.report.verification = Verification.model_validate(verified)

    def _latency(
        self,
        model: ModelSource,
        pruned: ModelPlace,
        report: Report,
        *,
        sequence_length: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
        needed: bool = False,
    ) -> Latency | None:
        """Measure the latency of dense and pruned, on the inputs that `MeasureSpec` describes.

        Return None, with a note in the report, where they do not fit in memory in turn and it is not `needed`.
        """
        spec = MeasureSpec(
            dense=model.place,
            pruned=pruned,
            sequence_length=sequence_length,
            image_shape=image_shape,
            device=self._settings.device,
            threads=self._settings.threads,
        )
        measured = self._optional(spec, report, otherwise=None if needed else "Latency was not measured")
        return None if measured is None else Latency.model_validate(measured["latency"])

    def _optional(self, spec: Spec, report: Report, *, otherwise: str | None) -> dict[str, Any] | None:
        """Run a task that a job can do without; its notes and peak memory go into the report.

        Return None, with `otherwise` as a note, where memory is too small for it (`otherwise` None: raise instead).
        """
        try:
            result = self._task(spec)
        except SecateurError as error:
            if otherwise is None or error.problem()["code"] != OutOfMemory.code:
                raise
            report.note(f"{otherwise}: {error.message}")
            return None
        report.note(*result.get("notes", []))
        keep_peak(report, spec.task, result)
        return result

    @property
    def _earlier(self) -> list[Path]:
        """The folders of earlier attempts, the newest first, as far as they are within reach."""
        folders = (self._folder.with_name(f"attempt-{number}") for number in self._claim.previous_attempts)
        return [folder for folder in folders if folder.is_dir()]

    def _record_log(self, message: Message) -> None:
        """Record a log line from runner or fetcher."""
        assert isinstance(message, LogMessage), message
        self._doing = message.message
        self._recorder.event("log", {"level": message.level, "message": message.message})

    def _wait(self) -> None:
        """Watch, and record a sign of life of this process itself, or the fetcher: it is at `_doing`."""
        self._on_wait()
        self._recorder.alive(self._doing)

    def _log(self, message: str) -> None:
        self._record_log(LogMessage(level="info", message=message))

    def _task(self, spec: Spec, part: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
        """Run a task of the runner; `part` is what it covers of its share of the job's progress."""
        start, end = self.shares[spec.task]
        low, high = (start + (end - start) * place for place in part)
        self._doing, has_spoken = None, False

        def on_message(message: Message) -> None:
            nonlocal has_spoken
            has_spoken = True
            match message:
                case AliveMessage():
                    self._recorder.alive(message.doing)
                case StageMessage():
                    self._recorder.enter(cast(Stage, message.stage))
                case ProgressMessage():
                    done = low + (high - low) * min(max(message.progress, 0.0), 1.0)
                    self._recorder.progress(done, message.model_dump(include={"block", "blocks"}, exclude_none=True))
                case LogMessage():
                    self._record_log(message)
                case MetricMessage():
                    self._recorder.event("metric", {"name": message.name, "step": message.step, "value": message.value})

        def on_wait() -> None:
            """Watch; a runner gives its own signs of life once it has spoken: one that stands still gives none."""
            self._on_wait() if has_spoken else self._wait()

        return run_task(
            spec,
            log=self._folder / "runner.log",
            on_message=on_message,
            on_wait=on_wait,
            grace_seconds=self._settings.cancel_grace_seconds,
            command=self._runner,
        )

    def _measured(self, output: StageOutput, *, seconds: float) -> dict[str, Any]:
        """Return the resources this attempt has used so far, in the terms of its estimate."""
        folders = [self._folder]
        if output.model.path.is_relative_to(self._settings.cache_root.resolve()):
            folders.append(output.model.path)
        if self._store.folder(self._prefix) is not None:
            folders.append(output.artifact)  # to be copied there
        peaks = list(output.report.peaks)
        on_device = [peak.device for peak in peaks if peak.device is not None]
        return {
            "peak_memory_bytes": max(peak.resident for peak in peaks),
            "peak_device_memory_bytes": max(on_device, default=None),
            "disk_bytes": sum(map(folder_bytes, folders)),
            "seconds": seconds,
        }

    def _add_seconds(self, metrics: Metrics) -> float:
        """Put the seconds of each stage into the metrics and return their sum."""
        self._recorder.leave()
        stages = self._recorder.stage_seconds
        before = {} if metrics.seconds is None else metrics.seconds.document()
        total = sum(stages.values())
        metrics.seconds = Seconds.model_validate({**before, **stages, "total": total})
        return total


def keep_peak(report: Report, task: str, result: dict[str, Any]) -> None:
    """Keep the peak memory of a task's process in the report, and take it out of the result."""
    if "peak_memory" in result:
        report.keep_peak(task, PeakMemory.model_validate(result.pop("peak_memory")))
