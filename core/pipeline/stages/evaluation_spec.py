"""Stages that measure an artifact, and that check that it opens again."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import ClassVar, Literal

from pydantic import Field

from core.engine.architectures.heterogeneous import MODELLING_FILE
from core.engine.datasets.chat.conversations import Frame
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.pipeline.dense_measurements import DenseMeasurements
from core.pipeline.messages import (
    DeviceSpec,
    JobSpec,
    LanguageSpec,
    ModelPlace,
    ModelSource,
    Spec,
    TaskOutput,
    TextSource,
)
from core.pipeline.reports.dense_figures import Facts
from core.pipeline.reports.report import EngineSettings, Report, TasksReport, Verification
from core.pipeline.stages.stage import JobStage, RunningJob
from secateur_wire.answers import AnswerFigures, ComparedAnswer
from secateur_wire.base import JsonObject, Number
from secateur_wire.metrics import Latency, Metrics, TaskMean
from secateur_wire.metrics import TaskAccuracy as TaskAccuracyFigures
from secateur_wire.reports import Generation


class MeasureSpec(DeviceSpec, Spec):
    """Spec of the latency measurement, which times the dense and the pruned model alternately in one process.

    Language models are timed on a sequence of tokens, image classifiers on images [channels, height, width]. Language
    models, which are loaded by then, also continue `prompts` by `prompt_tokens` new tokens each.
    """

    task: Literal["measure"] = "measure"
    dense: ModelPlace
    pruned: ModelPlace
    sequence_length: int | None = None
    image_shape: tuple[int, int, int] | None = None
    prompts: list[str] = Field(default_factory=list)
    prompt_tokens: int = 0


class LatencyOutput(TaskOutput):
    """Timings of the dense and the pruned model, and the texts that they wrote after the prompts."""

    latency: Latency
    generations: list[Generation] = Field(default_factory=list)


class GenerateSpec(DeviceSpec, Spec):
    """Spec of continuing prompts by `tokens` new tokens, greedily, with each of `models`."""

    task: Literal["generate"] = "generate"
    models: dict[str, ModelPlace]
    prompts: list[str]
    tokens: int


class GenerationOutput(TaskOutput):
    """Texts that models wrote after the same prompts."""

    generations: list[Generation]


class MeasureModels(JobStage):
    """Stage that times both models alternately, and has language models continue the job's prompts, for people to read.

    If both do not fit in memory together, a note says that they were not timed, and each writes alone.
    """

    family = JobSpec
    shown_as = "evaluate"

    def supervise(self, job: RunningJob) -> None:
        images, evaluation = job.report.images, job.spec.recipe.evaluation
        image_shape = None
        if images is not None:
            channels, height, width = images.shape
            image_shape = channels, height, width
        spec = MeasureSpec(
            dense=job.spec.model.place,
            pruned=job.spec.artifact_place,
            sequence_length=job.spec.recipe.timed_length if image_shape is None else None,
            image_shape=image_shape,
            prompts=evaluation.prompts,
            prompt_tokens=evaluation.prompt_tokens,
            device=job.spec.device,
            threads=job.spec.threads,
        )
        target = job.spec.recipe.target
        is_needed = target is not None and target.is_time and target.engine is None
        otherwise = None if is_needed else "Latency was not measured"
        output = job.run_optional(spec, LatencyOutput, otherwise=otherwise)
        job.metrics.latency = None if output is None else output.latency
        if output is not None and output.generations:
            job.report.generations = output.generations
        elif evaluation.prompts and image_shape is None:
            job.report.generations = self._written_in_turn(job)

    def _written_in_turn(self, job: RunningJob) -> list[Generation]:
        """Return what each model writes when it is loaded alone; nothing where it does not fit either."""
        evaluation = job.spec.recipe.evaluation
        spec = GenerateSpec(
            models={"dense": job.spec.model.place, "pruned": job.spec.artifact_place},
            prompts=evaluation.prompts,
            tokens=evaluation.prompt_tokens,
            device=job.spec.device,
            threads=job.spec.threads,
        )
        output = job.run_optional(spec, GenerationOutput, otherwise="Nothing was generated")
        if output is None:
            return [Generation(prompt=prompt, dense=None, pruned=None) for prompt in evaluation.prompts]
        return output.generations


_NOT_MEASURED = "Answers were not compared"


class AnswersSpec(DeviceSpec, Spec):
    """Spec of comparing the answers of the model `dense` and the artifact `pruned` to the questions of `question_sets`.

    The other fields are those of `LanguageSpec` and of the job's `evaluation.answers`. Answered batches are saved in
    `work`, and an attempt goes on after the last one that it finds there or in a folder of `previous`.
    """

    saves_progress: ClassVar[bool] = True
    task: Literal["answers"] = "answers"
    dense: ModelSource
    pruned: ModelSource
    question_sets: list[TextSource]
    frame: Frame | None
    samples: int | None
    max_new_tokens: int
    check: str | None
    work: Path
    previous: list[Path] = Field(default_factory=list)


class AnswersOutput(TaskOutput):
    """Figures of the answers, and the first of them to read, by the name of the set."""

    figures: dict[str, AnswerFigures]
    answers: dict[str, list[ComparedAnswer]]


class CompareAnswers(JobStage):
    """Stage in which both models answer the job's questions; a note says so if a model does not fit in memory."""

    shown_as = "evaluate"

    def is_requested(self, spec: JobSpec) -> bool:
        return spec.recipe.evaluation.answers is not None

    def supervise(self, job: RunningJob) -> None:
        spec, answers = job.language, job.spec.recipe.evaluation.answers
        assert answers is not None
        message = AnswersSpec(
            dense=spec.model,
            pruned=ModelSource(**spec.artifact_place.model_dump(), name=spec.model.name, revision=""),
            question_sets=spec.question_sets,
            frame=spec.frame,
            samples=answers.samples,
            max_new_tokens=answers.max_new_tokens,
            check=answers.check,
            work=spec.work,
            previous=spec.previous,
            device=spec.device,
            threads=spec.threads,
        )
        output = job.run_optional(message, AnswersOutput, otherwise=_NOT_MEASURED)
        if output is not None:
            calibrated = spec.recipe.calibration and spec.recipe.calibration.dataset
            if calibrated in output.figures:
                job.report.note(f"The questions of {calibrated} are from the text that was calibrated on, too.")
            job.metrics.answers = output.figures
            job.report.answers = output.answers
            job.report.texts = {
                **(job.report.texts or {}),
                "answers": {each.name: {"sha256": each.sha256, **each.origin} for each in spec.question_sets},
            }


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

    shown_as = "evaluate"

    def is_requested(self, spec: JobSpec) -> bool:
        return bool(spec.recipe.evaluation.tasks)

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


class VerifySpec(DeviceSpec, Spec):
    """Spec of the reload check: open the artifact with from_pretrained in a fresh process, and compare the logits.

    `dtype` is that of the pass that gave the expected logits; None for the artifact's own.
    `modules` is the folder for an imported modelling file. `offload` is the folder for weights that are written to disk
    because the model does not fit in memory; None for quantised weights, which the libraries do not open from disk.
    """

    task: Literal["verify"] = "verify"
    artifact: ModelPlace
    expected: Path
    modules: Path
    offload: Path | None
    dtype: str | None = None


class VerificationOutput(TaskOutput):
    """Artifact as it was opened again: its description, and the figures of the check."""

    model: JsonObject
    verification: Verification


class VerifyArtifact(JobStage):
    """Stage of the reload check: a fresh process opens the artifact as users do."""

    family = JobSpec
    shown_as = "verify"

    def supervise(self, job: RunningJob) -> None:
        assert job.expected is not None
        report = job.report
        measured_in = None if report.rounding is None or report.engine is None else report.engine.model_dtype
        output = job.tasks.run(
            VerifySpec(
                artifact=job.spec.artifact_place,
                expected=job.expected,
                modules=job.spec.work / "modules",
                offload=None if job.spec.recipe.output.quantization is not None else job.spec.work / "offload",
                device=job.spec.device,
                threads=job.spec.threads,
                dtype=measured_in,
            ),
            VerificationOutput,
        )
        report.artifact = output.model
        report.keep_peak("verify", output.peak_memory)
        report.verification = output.verification
        if output.verification.offloaded:
            report.note(
                "The whole model does not fit in memory: it was checked with its blocks' matrices on the disk, each of "
                "which was read when it was used."
            )
        if isinstance(job.spec, LanguageSpec) and output.verification.trust_remote_code:
            report.note(
                "Layers differ in shape: from_pretrained needs trust_remote_code=True, which runs this folder's own "
                f"{MODELLING_FILE}."
            )
