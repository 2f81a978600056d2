"""Interface of the stages of a job, the data they pass on, and the services they need from the supervisor."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from core.pipeline.messages import JobSpec, LanguageSpec, PruneOutput, Spec, TaskOutput
from core.pipeline.reports.report import LatencySearch, Report
from secateur_wire.errors import DiskFull, ModelTooLarge, OutOfMemory, SecateurError
from secateur_wire.metrics import Metrics, VocabularySize
from secateur_wire.states import Stage as ShownStage

Output = TypeVar("Output", bound=TaskOutput)


class TaskRunner(Protocol):
    """Runner of a stage's tasks, which the supervisor provides; it also records the job's events."""

    def run(self, spec: Spec, kind: type[Output], part: tuple[float, float] = (0.0, 1.0)) -> Output:
        """Run a task and return its output of this kind; `part` is the task's part of the stage's progress."""

    def log(self, message: str) -> None:
        """Record a log line."""


class Entry(AbstractContextManager[object], Protocol):
    """Folder of the node's cache, which is not removed before it is closed."""

    path: Path


class Cache(Protocol):
    """Cache of the node: folders by their key."""

    def find(self, key: str) -> Entry | None:
        """Return an entry; None if there is none."""

    def fill(self, key: str, size: int) -> AbstractContextManager[Path | None]:
        """Return the folder to write an entry of `size` bytes to; None if the entry exists by now.

        Raises DiskFull or ModelTooLarge if there is no room.
        """


@dataclass
class RunningJob:
    """One attempt at a job whose inputs are fetched.

    `spec` has the fields that the specs of all stages share. The stages fill in `metrics`, `report`, `expected` (the
    reload check's reference) and, if a sparsity was searched for, `search`. `after_storing` is called with the revision
    of the stored artifact.
    """

    spec: JobSpec
    tasks: TaskRunner
    cache: Cache
    metrics: Metrics = field(default_factory=Metrics)
    report: Report = field(default_factory=Report)
    expected: Path | None = None
    search: LatencySearch | None = None
    after_storing: Callable[[str], None] = lambda revision: None

    @property
    def language(self) -> LanguageSpec:
        """Return the spec of a language model's job; only stages for language models use it."""
        assert isinstance(self.spec, LanguageSpec)
        return self.spec

    def keep_if_possible(self, key: str, file: str, content: str) -> None:
        """Keep a file on the node for later jobs; without room it is not kept, which fails no job."""
        with suppress(DiskFull, ModelTooLarge), self.cache.fill(key, len(content.encode())) as folder:
            if folder is not None:
                (folder / file).write_text(content, "utf-8")

    def begin_report(self, output: PruneOutput) -> None:
        """Continue with the metrics and the report of a model that was pruned or measured.

        Notes and peaks of earlier stages stay.
        """
        before = self.report
        self.metrics, self.report, self.expected = output.metrics, output.report, output.expected
        if (vocabulary := before.vocabulary) is not None:
            self.report.vocabulary = vocabulary
            self.metrics.vocabulary = VocabularySize(dense=vocabulary.before, pruned=vocabulary.kept)
        if before.notes:
            self.report.notes = [*before.notes, *self.report.notes]
        for process, peak in before.peak_memory_of_other_processes.items():
            self.report.keep_peak(process, peak)

    def run_optional(self, spec: Spec, kind: type[Output], *, otherwise: str | None) -> Output | None:
        """Run a task that the job can do without; its notes and peak memory go into the report.

        Return None if memory is too small for it, and add `otherwise` as a note. If `otherwise` is None, raise instead.
        """
        try:
            output = self.tasks.run(spec, kind)
        except SecateurError as error:
            if otherwise is None or error.problem()["code"] != OutOfMemory.code:
                raise
            self.report.note(f"{otherwise}: {error.message}")
            return None
        self.report.note(*output.notes)
        self.report.keep_peak(spec.task, output.peak_memory)
        return output


class JobStage(ABC):
    """Stage of a job; `core.pipeline.stages.registry` has the order of stages, and each one's part of the progress.

    `family` is the specs' class of the jobs that may have it, and `makes_model` says whether those make a model rather
    than figures of one; None for both. `shown_as` is the stage that users see meanwhile; if it is unset, the runner
    names it.
    """

    family: ClassVar[type[JobSpec]] = LanguageSpec
    makes_model: ClassVar[bool | None] = True
    shown_as: ClassVar[ShownStage | None] = None

    def applies(self, spec: JobSpec) -> bool:
        """Return True for a job that has this stage."""
        is_among = self.makes_model in (None, not spec.recipe.measures)
        return isinstance(spec, self.family) and is_among and self.is_requested(spec)

    def is_requested(self, spec: JobSpec) -> bool:
        """Return True if a job of the stage's family has the stage; all have it unless it says otherwise."""
        return True

    @abstractmethod
    def supervise(self, job: RunningJob) -> None:
        """Run the stage's tasks on a runner, and put their answers into the job."""
