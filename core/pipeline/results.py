"""Results of the stages, as a runner sends them to whoever told it what to do."""

from pathlib import Path

from pydantic import BaseModel, Field

from core.pipeline.reports.report import Exported, PeakMemory, RecoveryReport, Report, Verification
from secateur_wire.base import JsonObject, Number
from secateur_wire.metrics import ExportedFile, ExportSpeed, Latency, Metrics
from secateur_wire.reports import Generation


class TaskOutput(BaseModel):
    """Base of results: the peak memory of the stage's process, and remarks for the report."""

    peak_memory: PeakMemory | None = None
    notes: list[str] = Field(default_factory=list)


class PruneOutput(TaskOutput):
    """A model that was pruned, or measured. `expected` is what the reload check compares with, None without a model."""

    metrics: Metrics
    report: Report
    expected: Path | None = None


class RecoveryOutput(TaskOutput):
    """A model that was trained. `perplexity` is by text, None where it is no finite number.

    `window_losses` are by text too, the mean of each window in nats, none where one is no finite number;
    `zeros` are those of each layer before and after; `expected` is what the reload check compares with.
    """

    perplexity: dict[str, Number | None]
    window_losses: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    zeros: dict[str, tuple[int, int]]
    expected: Path
    recovery: RecoveryReport


class TimedShape(BaseModel):
    """A shape that was timed; `ratio` is pruned / dense milliseconds of the prefill."""

    sparsity: float
    ratio: float


class LatencySearch(BaseModel):
    """The sparsity to prune to; `spread` is the relative excess of the dense model's slowest round over its fastest."""

    sparsity: float
    spread: float
    steps: list[TimedShape]


class SearchOutput(TaskOutput):
    """The search for a target of latency."""

    search: LatencySearch


class LatencyOutput(TaskOutput):
    """Dense and pruned, timed."""

    latency: Latency


class TasksOutput(TaskOutput):
    """Answers of one model: figures of each task by its name, and the release of the harness that asked."""

    tasks: dict[str, dict[str, Number]]
    lm_eval: str


class GenerationOutput(TaskOutput):
    """Texts that models wrote after the same prompts."""

    generations: list[Generation]


class VerificationOutput(TaskOutput):
    """The artifact as it was opened again: its description, and figures of the check."""

    model: JsonObject
    verification: Verification


class ExportOutput(TaskOutput):
    """Another form of the artifact, as the report has it."""

    exported: Exported


class AddedExportOutput(TaskOutput):
    """Files of a form that was added to the artifact, and what ran them."""

    files: list[ExportedFile]
    runtime: str


class ExportSpeedsOutput(TaskOutput):
    """Speeds of files that were added, by type."""

    speeds: dict[str, ExportSpeed]


class GeneratedTextOutput(TaskOutput):
    """Text that a model wrote to calibrate on."""

    documents: int
    characters: int
    tokens: int


class NewModelOutput(TaskOutput):
    """A model folder that was made; `architecture` where it was read from another format."""

    parameters: int
    architecture: str | None = None
