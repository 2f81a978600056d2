"""Report of a job: what the stages of an attempt fill in, and cards, later jobs and the portal read.

The parts with fields are those that somebody reads; they keep all else that a stage tells for people.
"""

from pydantic import Field, JsonValue

from core.engine.cuts.report import SharePanel
from core.engine.removals.registry import REMOVALS
from core.pipeline.reports.dense_figures import DenseFigure
from secateur_wire import reports as wire
from secateur_wire.base import JsonObject, Number, Record
from secateur_wire.metrics import Metrics, TargetReached


class ReportedModel(Record):
    """The model the job was given, as its headers describe it."""

    name: str | None = None
    revision: str | None = None
    task: str | None = None
    architecture: str | None = None
    prunable_parameters: int | None = None


class ReportedImages(Record):
    """The image sets of a job. `shape` is channels, height and width of the images the classifier was run on."""

    shape: list[int] = Field(default_factory=list)


class MethodFigures(Record):
    """Figures that a method for classifiers noted. `reconstruction_errors` are by layer."""

    reconstruction_errors: dict[str, Number | None] = Field(default_factory=dict)


class EngineSettings(Record):
    """Settings of the pass that pruned: types of numbers, kind of device, and those of its plan."""

    model_dtype: str | None = None
    device: str | None = None


class PeakMemory(Record):
    """Most bytes a process had resident, and on its device where it had one."""

    resident: int
    device: int | None = None

    @property
    def of_model(self) -> int:
        """Return the peak where the model was: on the device, else resident."""
        return self.resident if self.device is None else self.device


class ReportedText(Record):
    """A text or an image set: its name and hash, and for one of the hub its commit."""

    name: str


class BeforeAndAfter(Record):
    """A figure before and after recovery."""

    before: Number
    after: Number


class RecoveryReport(Record):
    """Training after pruning: `trained` says what, `texts` on what; `tokens` of a language model only.

    `loss` has points of (step, mean loss), `loss_seconds` the seconds of training at each; `hidden_states_error` has
    points of the mean error of the hidden states, where these were matched.
    """

    method: str
    trained: str = ""
    trained_parameters: int | None = None
    steps: int | None = None
    tokens: int | None = None
    texts: list[ReportedText] = Field(default_factory=list)
    loss: list[tuple[int, Number]] = Field(default_factory=list)
    loss_seconds: list[Number] = Field(default_factory=list)
    hidden_states_error: list[tuple[int, Number]] = Field(default_factory=list)
    sparsity: BeforeAndAfter
    peak_memory: PeakMemory | None = None


class DenseUse(Record):
    """Figures of the dense model: how many were measured, how many taken from other jobs, and each with its facts."""

    measured: int = 0
    taken: int = 0
    figures: list[DenseFigure] = Field(default_factory=list)


class TasksReport(Record):
    """Zero-shot tasks: the questions, and what each model `measured`, dense and pruned, by task."""

    limit: int | None = None
    measured: dict[str, JsonObject] = Field(default_factory=dict)


class Verification(Record):
    """The reload check. A classifier's says on which images, and whether `from_pretrained` builds the network.

    `offloaded`: matrices of the blocks were left on the disk, and each was read when it was used.
    """

    from_pretrained: bool = False
    trust_remote_code: bool = False
    offloaded: bool = False
    image_shape: list[int] = Field(default_factory=list)


class Exported(Record):
    """Bytes of a form of the artifact, once it is written. A target of bytes is held against `bound_bytes`."""

    bytes: int | None = None
    bound_bytes: int | None = None


class TimedShape(Record):
    """A shape that was timed; `ratio` is pruned / dense milliseconds of the prefill."""

    sparsity: float
    ratio: float


class LatencySearch(Record):
    """The sparsity to prune to; `spread` is the relative excess of the dense model's slowest round over its fastest."""

    sparsity: float
    spread: float
    steps: list[TimedShape]


class TargetReport(TargetReached):
    """Target of the job and what was reached. `search` is how the sparsity for a latency was found."""

    search: LatencySearch | None = None


class Report(wire.Report):
    """Whole report of a job, with every part the service writes."""

    job: str | None = None
    attempt: int | None = None
    model: ReportedModel | None = None
    layer_sparsities: list[JsonValue] = Field(default_factory=list)
    sensitivity: JsonObject | None = None
    texts: JsonObject | None = None
    images: ReportedImages | None = None
    method: MethodFigures | None = None
    tokens: JsonObject | None = None
    engine: EngineSettings | None = None
    peak_memory: PeakMemory | None = None
    peak_memory_of_other_processes: dict[str, PeakMemory] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    recovery: RecoveryReport | None = None
    dense: DenseUse | None = None
    tasks: TasksReport | None = None
    artifact: JsonObject | None = None
    verification: Verification | None = None
    target: TargetReport | None = None
    estimate: JsonObject | None = None
    seconds: dict[str, Number] = Field(default_factory=dict)
    metrics: Metrics | None = None
    recipe: JsonObject | None = None

    @property
    def dense_figures(self) -> list[DenseFigure]:
        """Return the figures of the dense model; none where none was measured."""
        return [] if self.dense is None else self.dense.figures

    @property
    def peaks(self) -> list[PeakMemory]:
        """Return the peak memory of every process of the attempt."""
        own = [] if self.peak_memory is None else [self.peak_memory]
        return [*own, *self.peak_memory_of_other_processes.values()]

    @property
    def panels(self) -> list[SharePanel]:
        """Return the panels of the picture of the layers that kinds of removal make of their sections."""
        return [panel for removal in REMOVALS.values() for panel in removal.panels(self.model_extra or {})]

    def exported(self, form: str) -> Exported | None:
        """Return what is said of a form of the artifact; None where it has none."""
        section = (self.model_extra or {}).get(form)
        return None if section is None else Exported.model_validate(section)

    def add_export(self, form: str, section: JsonObject) -> None:
        """Say of a form of the artifact what it came to, under the name of the form."""
        setattr(self, form, section)

    def note(self, *notes: str) -> None:
        """Add notes for people."""
        self.notes = [*self.notes, *notes]

    def keep_peak(self, process: str, peak: PeakMemory | None) -> None:
        """Keep a process's peak memory, where it is known, beside the prune stage's, not added to it."""
        if peak is not None:
            self.peak_memory_of_other_processes = {**self.peak_memory_of_other_processes, process: peak}
