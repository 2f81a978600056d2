"""Report of a job: the stages of an attempt fill it in; cards, later jobs and the portal read it.

Fields are declared for the parts that code reads. Everything else that a stage adds is kept for people.
"""

from typing import Final

from pydantic import Field, JsonValue

from core.engine.datasets.window_losses import WindowLosses
from core.engine.removals.experts import SECTION, SharePanel, token_panels
from core.pipeline.reports.dense_figures import DenseFigure
from secateur_wire import reports as wire
from secateur_wire.base import JsonObject, Number, Record
from secateur_wire.metrics import Metrics, TargetReached

ARTIFACT: Final = "artifact"
"""Name of the artifact's own weights among the files whose losses a report has."""


class ReportedModel(Record):
    """Model that the job was given, as its headers describe it."""

    name: str | None = None
    revision: str | None = None
    task: str | None = None
    architecture: str | None = None
    prunable_parameters: int | None = None


class ReportedImages(Record):
    """Image sets of a job; `shape` is channels, height and width of the images that the classifier was run on."""

    shape: list[int] = Field(default_factory=list)


class MethodFigures(Record):
    """Figures that a classifier method noted; `reconstruction_errors` are by layer."""

    reconstruction_errors: dict[str, Number | None] = Field(default_factory=dict)


class EngineSettings(Record):
    """Settings of the pass that pruned: number types, kind of device, and the settings of its plan."""

    model_dtype: str | None = None
    device: str | None = None


class Rounded(Record):
    """Perplexity of the dense model in its own dtype and in that of `output.dtype`, and their ratio.

    `kl` is the mean KL divergence of its predictions in nats; None where the dense ones were known from another job.
    """

    dense: Number
    rounded: Number | None
    ratio: Number | None
    kl: Number | None = None

    @classmethod
    def of(cls, dense: float, rounded: float | None, divergence: float | None = None) -> "Rounded":
        ratio = rounded / dense if rounded is not None and dense else None
        return cls(dense=dense, rounded=rounded, ratio=ratio, kl=divergence)


class Rounding(Record):
    """Cost of `output.dtype`: changes of the dense model where its wider weights are rounded, and nothing is pruned.

    `largest_relative_error` is over the weights that are normal numbers of the dtype. `underflowed` counts weights that
    were not zero and became zero. `perplexity` is by evaluation set.
    """

    dtype: str
    tensors: int
    weights: int
    largest_relative_error: Number
    largest_in: str | None = None
    underflowed: int
    underflowed_tensors: int
    perplexity: dict[str, Rounded] = Field(default_factory=dict)

    @property
    def words(self) -> str:
        """Sentences for the notes of the report."""
        ratios = ", ".join(
            f"× {each.ratio:.5g} on {name}" + (f" (KL {each.kl:.2g} nats)" if each.kl is not None else "")
            for name, each in self.perplexity.items()
            if each.ratio is not None
        )
        cost = f" Without pruning that makes the dense model's perplexity {ratios}." if ratios else ""
        lost = "No weight became zero by it."
        if self.underflowed:
            where = f"in {self.underflowed_tensors} tensors"
            lost = f"{self.underflowed:,} weights {where} were too small for it and became zero."
        return (
            f"Stored in {self.dtype}: {self.weights:,} wider weights were rounded, by at most "
            f"{self.largest_relative_error:.2%}, before the model was measured. {lost}{cost}"
        )


class QuantizationReport(Record):
    """Quantised weights of the artifact, and the model's perplexity before where a pass of its own quantised it.

    `bits_per_weight` counts the scales too. `reconstruction_error` is the mean over the layers of ‖(W−Ŵ)X‖/‖WX‖ of
    the pass that quantised, W being the weights before it: of pruning too where both are done at once.
    """

    scheme: str
    group_size: int | None = None
    rounding: str
    layers: int
    weights: int
    bits_per_weight: Number
    reconstruction_error: Number | None = None
    perplexity_before: dict[str, Number | None] = Field(default_factory=dict)

    @property
    def words(self) -> str:
        """Sentence for the notes of the report."""
        groups = "each output channel" if self.group_size is None else f"{self.group_size} inputs of an output channel"
        return (
            f"Quantised: {self.weights:,} weights of {self.layers} linear layers are {self.scheme} codes with a scale "
            f"for {groups}, {self.bits_per_weight:.3g} bits a weight, chosen by {self.rounding}. All figures are of "
            "the quantised model; times are of its dequantised weights."
        )


class PeakMemory(Record):
    """Largest number of bytes that a process had resident, and on its device if it had one."""

    resident: int
    device: int | None = None

    @property
    def of_model(self) -> int:
        """Return the peak in the memory that held the model: the device's if there is one, or resident memory."""
        return self.resident if self.device is None else self.device


class ReportedText(Record):
    """Text or image set: its name and hash and, for one from the hub, its commit."""

    name: str


class BeforeAndAfter(Record):
    """A figure before and after recovery."""

    before: Number
    after: Number


class RecoveryReport(Record):
    """Training after pruning: `trained` names what was trained, `texts` the data; `tokens` is for language models only.

    `loss` has points of (step, mean loss), and `loss_seconds` the seconds of training at each point.
    `hidden_states_error` has points of the mean error of the hidden states, if these were matched.
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
    """Figures of the dense model, each with its facts: how many were measured, and how many taken from other jobs."""

    measured: int = 0
    taken: int = 0
    figures: list[DenseFigure] = Field(default_factory=list)


class TasksReport(Record):
    """Zero-shot tasks: the questions, and the figures `measured` of the dense and the pruned model, by task."""

    limit: int | None = None
    measured: dict[str, JsonObject] = Field(default_factory=dict)


class Verification(Record):
    """Reload check; for a classifier also its images, and whether `from_pretrained` builds the network.

    `offloaded` means that matrices of the blocks stayed on disk, and each was read when it was used.
    """

    from_pretrained: bool = False
    trust_remote_code: bool = False
    offloaded: bool = False
    image_shape: list[int] = Field(default_factory=list)


class Exported(Record):
    """Bytes of a form of the artifact after writing; a target of bytes is compared with `bound_bytes`."""

    bytes: int | None = None
    bound_bytes: int | None = None


class TimedShape(Record):
    """Shape that was timed; `ratio` is pruned / dense milliseconds of the prefill."""

    sparsity: float
    ratio: float


class LatencySearch(Record):
    """Search for a latency; `spread` is the dense model's slowest time over its fastest, minus one.

    `sparsity` is the sparsity to prune to.
    """

    sparsity: float
    spread: float
    steps: list[TimedShape]


class TargetReport(TargetReached):
    """Target of the job and the figure that was reached; `search` describes how a latency's sparsity was found."""

    search: LatencySearch | None = None


class Report(wire.Report):
    """Complete report of a job, with every part the service writes.

    `window_losses` are those of the artifact (`ARTIFACT`), of each added file by its name, and of the dense model in
    `output.dtype` by the name of that copy; each by evaluation set.
    """

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
    rounding: Rounding | None = Field(default=None, exclude_if=lambda rounding: rounding is None)
    quantization: QuantizationReport | None = Field(default=None, exclude_if=lambda quantization: quantization is None)
    peak_memory: PeakMemory | None = None
    peak_memory_of_other_processes: dict[str, PeakMemory] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    recovery: RecoveryReport | None = None
    dense: DenseUse | None = None
    window_losses: dict[str, dict[str, WindowLosses]] = Field(
        default_factory=dict, exclude_if=lambda losses: not losses
    )
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
        """Return the figures of the dense model; empty if none were measured."""
        return [] if self.dense is None else self.dense.figures

    @property
    def peaks(self) -> list[PeakMemory]:
        """Return the peak memory of every process of the attempt."""
        own = [] if self.peak_memory is None else [self.peak_memory]
        return [*own, *self.peak_memory_of_other_processes.values()]

    @property
    def panels(self) -> list[SharePanel]:
        """Return the panels of experts in the picture of the layers."""
        return token_panels((self.model_extra or {}).get(SECTION, ()))

    def exported(self, form: str) -> Exported | None:
        """Return the section of a form of the artifact; None if it has none."""
        section = (self.model_extra or {}).get(form)
        return None if section is None else Exported.model_validate(section)

    def add_export(self, form: str, section: JsonObject) -> None:
        """Store the section of a form of the artifact, under the name of the form."""
        setattr(self, form, section)

    def note(self, *notes: str) -> None:
        """Add notes for people."""
        self.notes = [*self.notes, *notes]

    def keep_peak(self, process: str, peak: PeakMemory | None) -> None:
        """Store the peak memory of a process, if known, beside the prune stage's; peaks are not added up."""
        if peak is not None:
            self.peak_memory_of_other_processes = {**self.peak_memory_of_other_processes, process: peak}
