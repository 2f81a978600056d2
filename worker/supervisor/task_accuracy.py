"""Zero-shot accuracy of dense and pruned, each asked by a runner of its own, side by side.

What a model answered is kept on the node by the model's content and the questions: the dense model of a hundred jobs,
and the artifact that the next job starts from, are asked once.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from statistics import mean
from typing import Any

from core.engine.evaluation.zero_shot_tasks import TASKS
from core.errors import DiskFull, ModelTooLarge
from core.pipeline.dense_measurements import DenseMeasurements
from core.pipeline.messages import ModelPlace, PruneSpec, TasksSpec, TextSource
from core.pipeline.reports.dense_figures import Facts
from core.pipeline.reports.report import EngineSettings, PeakMemory, Report, TasksReport
from core.service.sources.folders import content_hash_of
from core.settings import Settings
from core.storage import StoredFile
from secateur_wire.metrics import Metrics, TaskMean
from secateur_wire.metrics import TaskAccuracy as TaskAccuracyFigures
from worker.node_cache import NodeCache

_FILE = "accuracy.json"
_RELEASES = ("lm_eval", "torch", "transformers")

Ask = Callable[[TasksSpec, tuple[float, float]], dict[str, Any]]
"""Runs a runner's task, given the part of its share of the progress that it covers."""


class TaskAccuracy:
    """The accuracy of one attempt's models on its `questions`; `cache` holds what was measured on this node before."""

    def __init__(
        self,
        spec: PruneSpec,
        questions: Sequence[TextSource],
        settings: Settings,
        cache: NodeCache,
        log: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._questions = questions
        self._settings = settings
        self._cache = cache
        self._log = log
        self._pruned: Mapping[str, Any] = {}
        self._limit = spec.recipe.evaluation.task_limit if questions else None

    def compare(self, ask: Ask, pruned: ModelPlace, metrics: Metrics, report: Report) -> None:
        """Put the tasks' accuracy and its mean into the metrics, all else into the report; nothing without tasks."""
        if not self._questions:
            return
        figures = DenseMeasurements(self._spec.baseline, self._spec.job, log=self._log)
        taken = self._taken(figures, report)
        dense = None if taken else self._earlier(self._spec.model.revision)
        answers = {"dense": taken or dense or self._measure(ask, self._spec.model.place, (0.0, 0.5))}
        if not taken:
            for each in self._questions:
                facts = self._facts(each, report)
                figures.add("task", each.name, facts, answers["dense"]["tasks"][each.name], measured=not dense)
        figures.write_to(report)
        self._keep(self._spec.model.revision, answers["dense"])
        answers["pruned"] = self._measure(ask, pruned, (0.5, 1.0))
        for name, answer in answers.items():
            if peak := answer.pop("peak_memory", None):
                report.keep_peak(f"tasks_{name}", PeakMemory.model_validate(peak))
        self._pruned = answers["pruned"]
        report.versions = {**report.versions, "lm_eval": self._pruned["lm_eval"]}
        report.tasks = TasksReport.model_validate(
            {
                "limit": self._limit,
                "examples_in_prompt": 0,
                "questions": {each.name: {"sha256": each.sha256, **each.origin} for each in self._questions},
                "measured": {name: answer["tasks"] for name, answer in answers.items()},
            }
        )
        notes = _notes(self._questions)
        if dense:
            notes.append("The dense model's task accuracy was measured by an earlier job, on the same questions.")
        report.note(*notes)
        metrics.tasks = {each.name: _pair(each.name, answers) for each in self._questions}
        names = [each.name for each in self._questions]
        metrics.task_mean = TaskMean(
            dense=mean(_figure(name, answers["dense"]) for name in names),
            pruned=mean(_figure(name, answers["pruned"]) for name in names),
        )

    def _taken(self, figures: DenseMeasurements, report: Report) -> dict[str, Any] | None:
        """Return the dense model's figures from an earlier job, where it has those of every task."""
        baseline = self._spec.baseline
        facts = {each.name: self._facts(each, report) for each in self._questions}
        if baseline is None or not all(baseline.find("task", each) for each in facts.values()):
            return None
        tasks = {name: dict(figures.take("task", name, each) or {}) for name, each in facts.items()}
        return {"tasks": tasks, "lm_eval": version("lm_eval")}

    def _facts(self, questions: TextSource, report: Report) -> Facts:
        """Return the facts that the dense model's accuracy on one task depends on."""
        engine = report.engine or EngineSettings()
        return {
            "model": self._spec.model.revision,
            "dataset": questions.sha256,
            "limit": self._limit,
            "dtype": engine.model_dtype,
            "device": engine.device,
            **{name: version(name) for name in _RELEASES},
        }

    def keep_pruned(self, files: Sequence[StoredFile]) -> None:
        """Note what the pruned model answered under the content its artifact has in the store."""
        if self._questions:
            self._keep(content_hash_of({file.path: file.sha256 for file in files}), self._pruned)

    def _measure(self, ask: Ask, model: ModelPlace, part: tuple[float, float]) -> dict[str, Any]:
        spec = TasksSpec(
            model=model,
            questions=list(self._questions),
            limit=self._limit,
            work=self._spec.work / "tasks",
            device=self._settings.device,
            threads=self._settings.threads,
        )
        return ask(spec, part)

    def _earlier(self, revision: str) -> dict[str, Any] | None:
        entry = self._cache.find(self._key(revision))
        if entry is None:
            return None
        with entry:
            answer: dict[str, Any] = json.loads((entry.path / _FILE).read_text())
            return answer

    def _keep(self, revision: str, answer: Mapping[str, Any]) -> None:
        kept = json.dumps({name: answer[name] for name in ("tasks", "lm_eval")})
        fill = self._cache.fill(self._key(revision), len(kept))
        with contextlib.suppress(DiskFull, ModelTooLarge), fill as folder:  # else it is measured again
            if folder is not None:
                (folder / _FILE).write_text(kept)

    def _key(self, revision: str) -> str:
        """Return a key of everything the answers depend on."""
        releases = [version(name) for name in _RELEASES]
        questions = [(each.name, each.sha256) for each in self._questions]
        facts = [revision, questions, self._limit, self._settings.device, releases]
        return "accuracy-" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _figure(name: str, answer: Mapping[str, Any]) -> float:
    accuracy: float = answer["tasks"][name][TASKS[name].metric]
    return accuracy


def _pair(name: str, answers: Mapping[str, Mapping[str, Any]]) -> TaskAccuracyFigures:
    metric = TASKS[name].metric
    dense, pruned = (answers[model]["tasks"][name] for model in ("dense", "pruned"))
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
