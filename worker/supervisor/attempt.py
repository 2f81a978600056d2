"""One attempt at a job: its inputs are fetched, its stages run in order, and the artifact is stored."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from core.engine.architectures.describe import describe_folder
from core.engine.models.memory_limit import memory_left
from core.pipeline.messages import DeviceSpec, Spec
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.equal_bytes import artifact_files, compare_at_equal_bytes, is_compared, measuring_job
from core.pipeline.reports.manifest import finalise
from core.pipeline.reports.report import LatencySearch, Report, TargetReport
from core.pipeline.reports.source_card import SourceFacts, facts_of_card
from core.pipeline.reports.target_figure import target_figure
from core.pipeline.stages.registry import stages_of
from core.pipeline.stages.sources_spec import WriteSpec, WrittenOutput
from core.pipeline.stages.stage import Output, RunningJob, TaskRunner
from core.service.jobs.equal_bytes import known_dense_files
from core.service.jobs.estimates.resources import compare
from core.service.jobs.gates import evaluate_gates, gates_report, missed_gates
from core.service.jobs.queue import Claim
from core.service.sources.folders import content_hash_of
from core.service.sources.hub_tokens import find_access
from core.service.sources.references import HubModel, ModelReference
from core.settings import Settings
from core.signing import read_signer
from core.storage import Store, StoredFile, artifact_prefix
from secateur_wire.base import JsonObject, Number
from secateur_wire.errors import GateMissed
from secateur_wire.metrics import Metrics, Seconds, TargetReached
from secateur_wire.reports import GateResult
from secateur_wire.states import Stage
from worker.machine import usable_memory_bytes
from worker.node_cache import folder_bytes
from worker.runner.client import KilledForMemory, run_task
from worker.runner.messages import (
    AliveMessage,
    LogMessage,
    Message,
    MetricMessage,
    PartMessage,
    ProgressMessage,
    StageMessage,
)
from worker.supervisor.fetched_inputs import InputFetcher
from worker.supervisor.inputs import JobInputs
from worker.supervisor.recorder import Recorder
from worker.supervisor.work_folders import WorkFolders

Measured = dict[str, Number | None]
"""Resources that an attempt used, under the names of `core.service.jobs.estimates.resources.ResourceEstimate`."""


@dataclass(frozen=True)
class AttemptResult:
    """Results of an attempt that ran to its end; `missed` is set if only gates were not met."""

    metrics: Metrics
    report: Report
    files: list[StoredFile]
    missed: GateMissed | None
    measured: Measured


_OWN_TEXT = 0.25
"""Share of a job's progress for the model to write its own text, if it has to."""


class RunnerTasks(TaskRunner):
    """Runner of tasks, one after the other; `folder` takes the runner's log.

    `share` is the part of the job's progress that the tasks of the stage cover. `doing` describes the current work of
    this process or of the fetcher, while no runner reports.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        folder: Path,
        *,
        command: Sequence[str],
        on_wait: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._recorder = recorder
        self._folder = folder
        self._command = command
        self._on_wait = on_wait
        self._own_text = 0.0
        self.share = (0.0, 1.0)
        self.doing: str | None = None

    def run(self, spec: Spec, kind: type[Output], part: tuple[float, float] = (0.0, 1.0)) -> Output:
        """Run a task and return its result of this kind; `part` is the task's part of the stage's share."""
        start, end = self.share
        low, high = (self._own_text + (1 - self._own_text) * (start + (end - start) * place) for place in part)
        return self._run(spec, kind, low, high)

    def write_text(self, spec: WriteSpec) -> WrittenOutput:
        """Have the model write text before the first stage; later stages divide the rest of the progress.

        What else has to be fetched is fetched after it.
        """
        self._recorder.enter("write")
        self._own_text = _OWN_TEXT
        output = self._run(spec, WrittenOutput, 0.0, _OWN_TEXT)
        self._recorder.enter("fetch")
        return output

    def record_log(self, message: Message) -> None:
        """Record a log line from runner or fetcher."""
        assert isinstance(message, LogMessage), message
        self.doing = message.message
        self._recorder.event("log", {"level": message.level, "message": message.message})

    def log(self, message: str) -> None:
        """Record a log line of this process."""
        self.record_log(LogMessage(level="info", message=message))

    def wait(self) -> None:
        """Check for an end of the job; record a sign of life for this process or the fetcher, with its current work."""
        self._on_wait()
        self._recorder.alive(self.doing)

    def _run(self, spec: Spec, kind: type[Output], low: float, high: float) -> Output:
        self.doing, has_spoken = None, False
        self._recorder.begin_part(low, high)

        def progress_at(share: float) -> float:
            """Return the job's progress at a share of the task."""
            return low + (high - low) * min(max(share, 0.0), 1.0)

        def on_message(message: Message) -> None:
            nonlocal has_spoken
            has_spoken = True
            match message:
                case AliveMessage():
                    self._recorder.alive(message.doing)
                case StageMessage():
                    self._recorder.enter(cast(Stage, message.stage))
                case PartMessage():
                    self._recorder.begin_part(progress_at(message.start), progress_at(message.end))
                case ProgressMessage():
                    done = progress_at(message.progress)
                    self._recorder.progress(done, message.model_dump(include={"block", "blocks"}, exclude_none=True))
                case LogMessage():
                    self.record_log(message)
                case MetricMessage():
                    self._recorder.event("metric", {"name": message.name, "step": message.step, "value": message.value})

        def on_wait() -> None:
            """Check for an end of the job; a runner that has sent a message gives its own signs of life."""
            self._on_wait() if has_spoken else self.wait()

        def run(memory: int) -> Output:
            result = run_task(
                spec.model_copy(update={"memory_bytes": memory}) if isinstance(spec, DeviceSpec) else spec,
                log=self._folder / "runner.log",
                on_message=on_message,
                on_wait=on_wait,
                grace_seconds=self._settings.cancel_grace_seconds,
                command=self._command,
            )
            return kind.model_validate(result)

        memory = usable_memory_bytes(self._settings)
        try:
            return run(memory)
        except KilledForMemory as error:
            self.log(f"{error.message} It begins again where it was saved, with half of the memory.")
        return run(min(memory, memory_left()) // 2)


class Attempt:
    """One attempt at a job; errors are raised as a `SecateurError`, errors of `on_wait` unchanged."""

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
        self._on_wait = on_wait
        self._prefix = artifact_prefix(claim.job_id, claim.attempt)
        self._folder = (settings.work_root / claim.job_id / f"attempt-{claim.attempt}").resolve()
        self._tasks = RunnerTasks(settings, recorder, self._folder, command=runner, on_wait=on_wait)

    def run(self) -> AttemptResult:
        with WorkFolders(self._settings.work_root).locked(self._claim.job_id):
            return self._run()

    def _run(self) -> AttemptResult:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        team_id, tasks = self._claim.team_id, self._tasks
        fetcher = InputFetcher(
            self._settings, self._folder, team_id=team_id, on_message=tasks.record_log, on_wait=tasks.wait
        )
        with JobInputs(
            fetcher,
            self._store,
            find_access=lambda: self._recorder.read(partial(find_access, team_id=team_id, settings=self._settings)),
            write_text=tasks.write_text,
        ) as inputs:
            job = self._fetch(inputs)
            for stage, self._tasks.share in stages_of(job.spec):
                if stage.shown_as is not None:
                    self._recorder.enter(stage.shown_as)
                stage.supervise(job)
            return self._finish(job)

    def _fetch(self, inputs: JobInputs) -> RunningJob:
        spec = inputs.fetch_job(self._claim)
        inputs.end_fetching()
        self._on_wait()
        return RunningJob(spec, self._tasks, inputs.cache)

    def _finish(self, job: RunningJob) -> AttemptResult:
        """Evaluate the gates, write the manifest, and store the artifact."""
        self._recorder.enter("store")
        metrics, report, recipe = job.metrics, job.report, self._claim.recipe
        target = _add_target(recipe, metrics, report, job.search)
        if is_compared(recipe) and metrics.perplexity:
            self._compare_at_equal_bytes(job)
        results = [*evaluate_gates(recipe.gates, metrics), *([] if target is None else [target])]
        measured = self._measured(job, seconds=self._add_seconds(metrics))
        report.estimate = compare(self._claim.estimate, measured)
        report.seconds = dict(self._recorder.stage_seconds)
        report.gates = gates_report(recipe.gates, results)
        report.metrics = metrics
        source = _source_facts(self._claim.model, job.spec.model.path)
        key = self._settings.signing_key
        signer = None if key is None else read_signer(key)
        finalise(job.spec.artifact, recipe=recipe, body=self._claim.body, report=report, source=source, signer=signer)
        # Over REST the recipe is part of the report; in the artifact's manifest it stands beside the report.
        report.recipe = self._claim.body
        self._tasks.doing = "storing the artifact"
        files = self._store.publish(job.spec.artifact, self._prefix, watch=self._tasks.wait)
        job.after_storing(content_hash_of({file.path: file.sha256 for file in files}))
        measured["seconds"] = self._add_seconds(metrics)
        return AttemptResult(metrics, report, files, missed_gates(results), measured)

    def _compare_at_equal_bytes(self, job: RunningJob) -> None:
        """Compare the artifact with the dense model's files that this job and earlier ones of the team measured."""
        place, metrics, team_id = job.spec.model, job.metrics, self._claim.team_id
        known = self._recorder.read(lambda session: known_dense_files(session, team_id, place.revision))
        described = describe_folder(place.path, own_artifact=place.own_artifact, discovered=place.discovered)
        own = artifact_files(job.report, metrics)
        measure = measuring_job(self._claim.recipe, described.language_model, own, known)
        metrics.equal_bytes = compare_at_equal_bytes(job.report, metrics, known, measure)
        job.report.equal_bytes = metrics.equal_bytes

    def _measured(self, job: RunningJob, *, seconds: float) -> Measured:
        """Return the resources this attempt has used so far, by the names of its estimate."""
        folders = [self._folder]
        if job.spec.model.path.is_relative_to(self._settings.cache_root.resolve()):
            folders.append(job.spec.model.path)
        if self._store.folder(self._prefix) is not None:
            folders.append(job.spec.artifact)  # the store is on this disk too, and gets a copy
        peaks = list(job.report.peaks)
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


def _source_facts(model: ModelReference, folder: Path) -> SourceFacts:
    """Return the facts that the hub states about a model, or else the card in its `folder`."""
    if isinstance(model, HubModel):
        return SourceFacts(model.licence, model.repository)
    return facts_of_card(folder)


def _add_target(recipe: Recipe, metrics: Metrics, report: Report, search: LatencySearch | None) -> GateResult | None:
    """Put the target and the figure it reached into metrics and report; return the target's result.

    A latency is met within the spread of its timings. `search` is set if the sparsity was searched for. The result is
    not one of the gates.
    """
    target = recipe.target
    if target is None:
        return None
    reached, spread = target_figure(recipe, metrics, report)
    met = reached <= target.limit * (1 + spread)
    figures: JsonObject = {
        "kind": target.kind,
        "asked": target.limit,
        "reached": reached,
        "met": met,
        "spread": spread,
        "sparsity": _reached_sparsity(recipe, metrics) if search is None else search.sparsity,
    }
    metrics.target = TargetReached.model_validate(figures)
    searched = {} if search is None else {"search": search.document()}
    report.target = TargetReport.model_validate(figures | searched)
    within = f" (timings spread by {spread:.1%})" if target.is_time else ""
    name = f"target.{target.kind}"
    message = f"{name}: {target.limit:,} was asked for, the artifact reached {reached:,.6g}{within}"
    return GateResult(gate=name, limit=target.limit, figure=reached, on=None, kept=met, message=message, margin=0.0)


def _reached_sparsity(recipe: Recipe, metrics: Metrics) -> float | None:
    """Return the sparsity of a target that was not searched for: the recipe's, or what went where costs decided."""
    if recipe.is_chosen_by_cost and metrics.sparsity is not None:
        return metrics.sparsity.model
    return recipe.sparsity
