"""Interface of the stages of a job, what they pass on to one another, and what they ask of the supervisor."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from core.pipeline.messages import JobSpec, LanguageSpec, PruneOutput, Spec, TaskOutput
from core.pipeline.reports.report import LatencySearch, Report
from secateur_wire.errors import OutOfMemory, SecateurError
from secateur_wire.metrics import Metrics
from secateur_wire.states import Stage as ShownStage

Output = TypeVar("Output", bound=TaskOutput)


class TaskRunner(Protocol):
    """Runner of a stage's tasks, as the supervisor has it. It records the events of the job meanwhile."""

    def run(self, spec: Spec, kind: type[Output], part: tuple[float, float] = (0.0, 1.0)) -> Output:
        """Run a task, whose output is of this kind; `part` is the part that it covers of the stage's share."""

    def log(self, message: str) -> None:
        """Record a log line."""


class Entry(AbstractContextManager[object], Protocol):
    """Folder of the node's cache, which is not removed until it is closed."""

    path: Path


class Cache(Protocol):
    """The node's cache: folders by their key."""

    def find(self, key: str) -> Entry | None:
        """Return an entry; None where it is not there."""

    def fill(self, key: str, size: int) -> AbstractContextManager[Path | None]:
        """Return the folder to write an entry of so many bytes to; None where it is there by now.

        Raises DiskFull or ModelTooLarge where there is no room.
        """


@dataclass
class RunningJob:
    """One attempt at a job whose inputs are fetched.

    `spec` is what every stage of it is told. The stages fill in `metrics` and `report`, `expected`, which is what the
    reload check compares with, and `search`, where a sparsity was searched for.
    `after_storing` is called with the revision of the stored artifact.
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
        """The spec, in stages that are for language models alone."""
        assert isinstance(self.spec, LanguageSpec)
        return self.spec

    def begin_report(self, output: PruneOutput) -> None:
        """Go on with the metrics and the report of a model that was pruned, or measured.

        Notes and peaks of stages before it stay.
        """
        before = self.report
        self.metrics, self.report, self.expected = output.metrics, output.report, output.expected
        if before.notes:
            self.report.notes = [*before.notes, *self.report.notes]
        for process, peak in before.peak_memory_of_other_processes.items():
            self.report.keep_peak(process, peak)

    def run_optional(self, spec: Spec, kind: type[Output], *, otherwise: str | None) -> Output | None:
        """Run a task that a job can do without; its notes and peak memory go into the report.

        Return None, with `otherwise` as a note, where memory is too small for it (`otherwise` None: raise instead).
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
    """A stage. Jobs go through those that apply to them by `rank`, lowest first.

    `shown_as` is the stage that the job is in meanwhile; unset: its runner says so. `part` is where the stage begins
    and ends in the progress of the job; storing does the rest.
    """

    rank: ClassVar[int]
    shown_as: ClassVar[ShownStage | None] = None
    part: ClassVar[tuple[float, float]]

    @abstractmethod
    def applies(self, spec: JobSpec) -> bool:
        """Return True for a job that has this stage."""

    def share(self, spec: JobSpec) -> tuple[float, float]:
        """Return where it begins and ends in the progress of the job."""
        return self.part

    @abstractmethod
    def supervise(self, job: RunningJob) -> None:
        """Have the runner do it, and take its answer into the job."""
