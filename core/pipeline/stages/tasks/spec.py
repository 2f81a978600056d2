"""Stage of zero-shot tasks: the accuracy of the dense and the pruned model, each measured by its own runner.

The node keeps a model's answers by the model's content and the questions. So the dense model of a hundred jobs is asked
once, and so is an artifact that the next job starts from.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import ClassVar, Literal

from core.engine.evaluation.zero_shot_tasks import TASKS
from core.pipeline.dense_measurements import DenseMeasurements
from core.pipeline.messages import DeviceSpec, JobSpec, LanguageSpec, ModelPlace, Spec, TaskOutput, TextSource
from core.pipeline.reports.dense_figures import Facts
from core.pipeline.reports.report import EngineSettings, Report, TasksReport
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.base import Number
from secateur_wire.metrics import Metrics, TaskMean
from secateur_wire.metrics import TaskAccuracy as TaskAccuracyFigures

_FILE = "accuracy.json"
_RELEASES = ("lm_eval", "torch", "transformers")


class TasksSpec(DeviceSpec, Spec):
    """Spec of asking one model the questions of tasks, at most `limit` of each, after `num_fewshot` solved examples.

    `work` is a folder for temporary files of the harness.
    """

    libraries: ClassVar[tuple[str, ...]] = ("core.engine.evaluation.zero_shot",)
    task: Literal["tasks"] = "tasks"
    model: ModelPlace
    questions: list[TextSource]
    limit: int | None
    num_fewshot: int = 0
    work: Path


class TasksOutput(TaskOutput):
    """Answers of one model: figures of each task by its name, and the release of the harness that asked."""

    tasks: dict[str, dict[str, Number]]
    lm_eval: str


class AnswerTasks(JobStage):
    """Stage that asks the dense and the pruned model the questions of zero-shot tasks."""

    rank = 90
    shown_as = "evaluate"
    part = 0.94, 0.95

    def applies(self, spec: JobSpec) -> bool:
        is_pruned = isinstance(spec, LanguageSpec) and not spec.recipe.measures
        return is_pruned and bool(spec.recipe.evaluation.tasks)

    def supervise(self, job: RunningJob) -> None:
        accuracy = TaskAccuracy(job)
        accuracy.compare(job.metrics, job.report)
        job.after_storing = accuracy.keep_pruned


class TaskAccuracy:
    """Accuracy of one attempt's models on its questions; the node's cache has what was measured there before."""

    def __init__(self, job: RunningJob) -> None:
        self._job = job
        self._spec = job.language
        self._questions = job.language.questions
        self._limit = job.spec.recipe.evaluation.task_limit
        self._num_fewshot = job.spec.recipe.evaluation.num_fewshot
        self._pruned: TasksOutput | None = None

    def compare(self, metrics: Metrics, report: Report) -> None:
        """Put the tasks' accuracy and its mean into the metrics, and everything else into the report."""
        figures = DenseMeasurements(self._spec, log=self._job.tasks.log)
        taken = self._reuse_dense_figures(figures, report)
        earlier = None if taken else self._earlier(self._spec.model.revision)
        dense = taken or earlier or self._measure(self._spec.model.place, (0.0, 0.5))
        if not taken:
            for each in self._questions:
                facts = self._facts(each, report)
                figures.add("task", each.name, facts, dense.tasks[each.name], measured=not earlier)
        figures.write_to(report)
        self._keep(self._spec.model.revision, dense)
        pruned = self._pruned = self._measure(self._spec.artifact_place, (0.5, 1.0))
        report.keep_peak("tasks_dense", dense.peak_memory)
        report.keep_peak("tasks_pruned", pruned.peak_memory)
        report.versions = {**report.versions, "lm_eval": pruned.lm_eval}
        report.tasks = TasksReport.model_validate(
            {
                "limit": self._limit,
                "examples_in_prompt": self._num_fewshot,
                "questions": {each.name: {"sha256": each.sha256, **each.origin} for each in self._questions},
                "measured": {"dense": dense.tasks, "pruned": pruned.tasks},
            }
        )
        notes = [*_notes(self._questions), *_cut_notes(dense)]
        if earlier:
            notes.append("The dense model's task accuracy was measured by an earlier job, on the same questions.")
        report.note(*notes)
        metrics.tasks = {each.name: _pair(each.name, dense, pruned) for each in self._questions}
        names = [each.name for each in self._questions]
        metrics.task_mean = TaskMean(
            dense=mean(_figure(name, dense) for name in names),
            pruned=mean(_figure(name, pruned) for name in names),
        )

    def _reuse_dense_figures(self, figures: DenseMeasurements, report: Report) -> TasksOutput | None:
        """Return the dense model's figures from an earlier job, if it has the figures of every task."""
        baseline = self._spec.baseline
        facts = {each.name: self._facts(each, report) for each in self._questions}
        if baseline is None or not all(baseline.find("task", each) for each in facts.values()):
            return None
        taken = {name: figures.reuse("task", name, each) for name, each in facts.items()}
        tasks = {name: {} if each is None else dict(each.values) for name, each in taken.items()}
        return TasksOutput(tasks=tasks, lm_eval=version("lm_eval"))

    def _facts(self, questions: TextSource, report: Report) -> Facts:
        """Return the facts that the dense model's accuracy on one task depends on."""
        engine = report.engine or EngineSettings()
        return {
            "model": self._spec.model.revision,
            "dataset": questions.sha256,
            "limit": self._limit,
            **({"num_fewshot": self._num_fewshot} if self._num_fewshot else {}),
            "dtype": engine.model_dtype,
            "device": engine.device,
            **{name: version(name) for name in _RELEASES},
        }

    def keep_pruned(self, revision: str) -> None:
        """Keep the pruned model's answers under the revision that its artifact has in the store."""
        if self._pruned is not None:
            self._keep(revision, self._pruned)

    def _measure(self, model: ModelPlace, part: tuple[float, float]) -> TasksOutput:
        spec = TasksSpec(
            model=model,
            questions=self._questions,
            limit=self._limit,
            num_fewshot=self._num_fewshot,
            work=self._spec.work / "tasks",
            device=self._spec.device,
            threads=self._spec.threads,
        )
        return self._job.tasks.run(spec, TasksOutput, part)

    def _earlier(self, revision: str) -> TasksOutput | None:
        entry = self._job.cache.find(self._key(revision))
        if entry is None:
            return None
        with entry:
            return TasksOutput.model_validate_json((entry.path / _FILE).read_bytes())

    def _keep(self, revision: str, answers: TasksOutput) -> None:
        kept = answers.model_dump_json(include={"tasks", "lm_eval"})
        self._job.keep_if_possible(self._key(revision), _FILE, kept)

    def _key(self, revision: str) -> str:
        """Return a key of everything the answers depend on."""
        releases = [version(name) for name in _RELEASES]
        questions = [(each.name, each.sha256) for each in self._questions]
        facts = [revision, questions, self._limit, self._num_fewshot, self._spec.device, releases]
        return "accuracy-" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _figure(name: str, answers: TasksOutput) -> float:
    return answers.tasks[name][TASKS[name].metric]


def _pair(name: str, *answers: TasksOutput) -> TaskAccuracyFigures:
    metric = TASKS[name].metric
    dense, pruned = (each.tasks[name] for each in answers)
    return TaskAccuracyFigures(
        dense=dense[metric],
        dense_stderr=dense[f"{metric}_stderr"],
        pruned=pruned[metric],
        pruned_stderr=pruned[f"{metric}_stderr"],
        metric=metric,
        samples=dense["samples"],
    )


def _notes(questions: Sequence[TextSource]) -> list[str]:
    return [
        f"The questions of {each.name} are those of its split {each.origin['split']}; papers report "
        f"{TASKS[each.name].splits[0]}."
        for each in questions
        if each.origin["split"] != TASKS[each.name].splits[0]
    ]


def _cut_notes(answers: TasksOutput) -> list[str]:
    return [
        f"{count:.0f} answers to questions of {name} are, with their examples, longer than the model's context: the "
        "first examples were not read there."
        for name, figures in answers.tasks.items()
        if (count := figures.get("cut") or 0)
    ]
