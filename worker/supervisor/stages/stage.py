"""Interface of the stages, and what they pass on to one another."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from core.pipeline.messages import JobSpec, LanguageSpec, TextSource
from core.pipeline.reports.report import Report
from core.pipeline.results import SearchOutput
from core.storage import StoredFile
from secateur_wire.metrics import Metrics
from secateur_wire.states import Stage as ShownStage
from worker.node_cache import NodeCache
from worker.supervisor.runner_tasks import RunnerTasks


@dataclass
class RunningJob:
    """One attempt at a job whose inputs are fetched.

    `spec` is what every stage of it is told. The stages fill in `metrics` and `report`, `expected`, which is what the
    reload check compares with, and `search`, where a sparsity was searched for.
    `after_storing` is called with the files of the stored artifact.
    """

    spec: JobSpec
    questions: Sequence[TextSource]
    tasks: RunnerTasks
    cache: NodeCache
    metrics: Metrics = field(default_factory=Metrics)
    report: Report = field(default_factory=Report)
    expected: Path | None = None
    search: SearchOutput | None = None
    after_storing: Callable[[Sequence[StoredFile]], None] = lambda files: None

    @property
    def language(self) -> LanguageSpec:
        """The spec, in stages that are for language models alone."""
        assert isinstance(self.spec, LanguageSpec)
        return self.spec


class JobStage(ABC):
    """A stage. `shown_as` is the stage that the job is in meanwhile; unset: its runner says so.

    `share` is the part of the job's progress that it covers; storing does the rest.
    """

    shown_as: ClassVar[ShownStage | None] = None

    @abstractmethod
    def applies(self, spec: JobSpec) -> bool:
        """Return True for a job that has this stage."""

    @abstractmethod
    def share(self, spec: JobSpec) -> tuple[float, float]:
        """Return where it begins and ends in the progress of the job."""

    @abstractmethod
    def run(self, job: RunningJob) -> None:
        """Have the runner do it, and take its answer into the job."""
