"""Jobs: their state, events, attempts and artifacts, the verdict on each, and what a job would need."""

from datetime import datetime
from typing import Annotated, Final, Generic, Literal

from pydantic import Field, WithJsonSchema
from typing_extensions import TypeVar

from secateur_wire.base import JsonObject, OneOf, Page, WireModel
from secateur_wire.metrics import Metrics
from secateur_wire.models import ModelSummary
from secateur_wire.states import FINISHED, AttemptOutcome, EventType, JobStatus, Stage

Band = Literal["as good as dense", "close to dense", "noticeably worse", "much worse", "unusable"]
"""Words for how a pruned model compares with the dense one, the best first."""


class Verdict(WireModel):
    """Verdict on a pruned model, by the worst of what was measured of its quality.

    `figure` is what it rests on, `on` the text, image set or task (null for the mean of several). With perplexity
    `ratio` is pruned over dense, null where the pruned one is no finite number; with accuracy `change` is pruned less
    dense. `within_noise`: the difference is one that the measurement cannot tell from none. `worse_than_random`:
    removing as much at random was measured, and did better; false where it did not, or was not measured. `words` and
    `reason` say all this to people.
    """

    band: Annotated[str, OneOf(Band)]
    within_noise: bool
    worse_than_random: bool
    figure: Annotated[str, OneOf(Literal["perplexity", "accuracy"])]
    on: str | None
    ratio: float | None
    change: float | None
    words: str
    reason: str


Figures = TypeVar("Figures", default=Metrics)
Body = TypeVar("Body", default=JsonObject)

JobSort = Literal["newest", "oldest", "model", "method", "status", "finished"]
"""Orders of a list of jobs."""

NEEDS_CHANGE: Final = frozenset(
    {
        *("gate_missed", "recovery_diverged", "conflict", "not_found"),
        *("invalid_request", "invalid_sparsity", "invalid_target", "invalid_pattern", "invalid_parameters"),
        *("indivisible_width", "unsupported_architecture", "too_little_text", "too_few_images"),
        *("unusable_dataset", "unusable_model", "unsafe_config", "pickle_checkpoint", "corrupt_safetensors"),
        *("missing_tensors", "not_finite_weights", "path_escapes"),
    }
)
"""Codes of errors that the same job would end with again: what was asked for, or what it was asked of, is at fault."""


class JobError(WireModel):
    """Error that ended a job. `retryable`: another attempt could end differently."""

    code: str
    message: str
    param: str | None = None
    retryable: bool = False

    @property
    def needs_change(self) -> bool:
        """Tell whether the same job would end so again: it has to be changed, not retried."""
        return self.code in NEEDS_CHANGE


class JobState(WireModel, Generic[Figures]):
    """A job without the parts of its request that have fields of their own.

    `progress` runs from 0 to 1. `waiting_reason` says why no worker can take a job that waits, None where one can.
    `estimated_seconds` is how long an attempt was expected to take when the job was submitted, and
    `estimated_seconds_deviation` the standard deviation of its logarithm, None where no jobs say how exact it is.
    `verdict` puts in words how the model compares with the dense one, None where no quality was measured.
    """

    id: str
    object: Literal["job"] = "job"
    status: JobStatus
    stage: Annotated[str, OneOf(Stage)] | None
    progress: float
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    waiting_reason: str | None = None
    estimated_seconds: float | None = None
    estimated_seconds_deviation: float | None = None
    error: JobError | None
    metrics: Figures | None
    verdict: Verdict | None = None
    model: str
    model_revision: str = ""
    warnings: list[str] = Field(default_factory=list)
    method: str
    sparsity: float | None = None
    pattern: str

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def missed_gate(self) -> bool:
        """Tell whether it was pruned and stored, but is worse than a gate of the job allows."""
        return self.status == "failed" and self.error is not None and self.error.code == "gate_missed"

    @property
    def needs_change(self) -> bool:
        """Tell whether it failed as it would fail again: it has to be changed, not retried."""
        return self.status == "failed" and self.error is not None and self.error.needs_change


class JobEvent(WireModel):
    """One event. Types: status {status, …}, stage {stage}, progress {progress, …; `doing` says what
    the worker is at, and one comes every few seconds even where there is no progress}, log {level, message}, metric
    {name, step, value}.
    """

    sequence: int
    type: Annotated[str, OneOf(EventType)]
    created_at: datetime
    attempt: int
    data: JsonObject

    @property
    def ends_job(self) -> bool:
        return self.type == "status" and self.data.get("status") in FINISHED


class EventPage(Page[JobEvent]):
    """Events after a number, oldest first. `next_after` is the number to go on from."""

    next_after: int


class JobAttempt(WireModel):
    """One attempt at a job: the worker that held it, and how it ended (null while it runs).

    `outcome` released: the worker shut down and gave the job back; lost: it stopped renewing its lease. `stages` are
    seconds by stage, `needs` the estimate made when the job was submitted, `measured` what a success took.
    """

    attempt: int
    worker_id: str
    queue: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Annotated[str, OneOf(AttemptOutcome)] | None
    error_code: str | None
    stages: dict[str, float] | None = None
    needs: JsonObject | None = None
    measured: JsonObject | None = None


class AttemptPage(Page[JobAttempt]):
    """Attempts before a number, newest first. `next_after` is the number to go on from, null on the last page."""

    next_after: int | None = None


class ArtifactFile(WireModel):
    """One file of an artifact."""

    path: str
    bytes: int
    sha256: str


class ArtifactList(Page[ArtifactFile]):
    """All files of an artifact."""

    has_more: Literal[False] = False
    next_after: None = None


class MethodFit(WireModel):
    """Fit of a method to the model: whether it can prune it, and if not why."""

    method: str
    fits: bool
    reason: str | None


class EstimateBasis(WireModel):
    """Basis of an estimate: `formula` from the model's headers and the job body, corrected by what so many
    `jobs` of the same queue and method took (0: the formula alone).

    `seconds_deviation` is by how much these differ: the standard deviation of ln(measured / formula) of their seconds.
    """

    jobs: int
    formula: dict[str, float | None]
    seconds_deviation: float | None = None


class Estimate(WireModel):
    """Needs of a job, estimated: peaks of memory, device memory (null on CPU workers) and disk; `seconds` of one
    attempt. `forward_tokens` are images where the model is a classifier. `warnings` say what the body asks for and will
    most likely not get.
    """

    peak_memory_bytes: int
    peak_device_memory_bytes: int | None = None
    disk_bytes: int
    seconds: Annotated[float | None, WithJsonSchema({"type": "number"})] = None
    forward_tokens: int = 0
    floating_point_operations: int = 0
    warnings: list[str] = Field(default_factory=list)
    basis: EstimateBasis = EstimateBasis(jobs=0, formula={})


class ExpectedArtifact(WireModel):
    """Size of a job's artifact, estimated: parameters that are not zero, and bytes of its tensors."""

    parameters: int
    bytes: int


class Inspection(ModelSummary, Generic[Body]):
    """Description of a model and which methods fit.

    For a job body there are also the body with defaults (`job`), an estimate, and the size of the artifact where it is
    known before. `assumed` says what a job has to have that the body left out, and what was taken instead.
    """

    object: Literal["inspection"] = "inspection"
    model: str
    model_revision: str = ""
    methods: list[MethodFit]
    job: Body | None
    estimate: Estimate | None
    artifact: ExpectedArtifact | None = None
    assumed: list[str] = Field(default_factory=list)


class WayToRun(WireModel):
    """Commands of a shell that run the artifact in one runtime, which needs these `packages` of Python's."""

    object: Literal["way_to_run"] = "way_to_run"
    runtime: str
    about: str
    packages: list[str]
    commands: str
