"""Jobs with their states, events, attempts, artifacts, verdicts and estimates."""

from datetime import datetime
from typing import Annotated, Final, Generic, Literal

from pydantic import Field, WithJsonSchema
from typing_extensions import TypeVar

from secateur_wire.answers import AnswerBand
from secateur_wire.base import JsonObject, OneOf, Page, WireModel
from secateur_wire.errors import ApiError
from secateur_wire.metrics import Metrics
from secateur_wire.models import ModelSummary
from secateur_wire.states import FINISHED, AttemptOutcome, EventType, JobStatus, Stage

Band = Literal["as good as dense", "close to dense", "noticeably worse", "much worse", "unusable"]
"""Ratings of a pruned model against the dense one, the best first."""


class Verdict(WireModel):
    """Verdict on a pruned model, by its worst quality figure.

    `figure` is the kind of that figure, and `on` its text, image set or task (null for the mean of several). For
    perplexity, `ratio` is pruned over dense, null where the pruned one is not finite. For accuracy, `change` is pruned
    minus dense. `within_noise`: the difference is within the measurement error. `worse_than_random`: random pruning
    with the same amount was measured and was better; false if it was not better, or not measured. `words` and `reason`
    explain the verdict to people. `answers` says whether the model still answers as the dense one does, null where no
    answers were compared; the words then begin with it, and the band is no better than it allows.
    """

    band: Annotated[str, OneOf(Band)]
    within_noise: bool
    worse_than_random: bool
    figure: Annotated[str, OneOf(Literal["perplexity", "accuracy", "answers"])]
    on: str | None
    ratio: float | None
    change: float | None
    words: str
    reason: str
    answers: Annotated[str, OneOf(AnswerBand)] | None = Field(None, exclude_if=lambda answers: answers is None)


Figures = TypeVar("Figures", default=Metrics)
Body = TypeVar("Body", default=JsonObject)

JobSort = Literal["newest", "oldest", "model", "method", "status", "finished"]
"""Sort orders of a list of jobs."""


def _changed_codes(kind: type[ApiError]) -> set[str]:
    own = {kind.code} if kind.needs_change else set[str]()
    return own.union(*map(_changed_codes, kind.__subclasses__()))


NEEDS_CHANGE: Final = frozenset(_changed_codes(ApiError))
"""Error codes of jobs that would fail again in the same way."""


class JobError(WireModel):
    """Error that ended a job. `retryable`: another attempt could end differently."""

    code: str
    message: str
    param: str | None = None
    retryable: bool = False

    @property
    def needs_change(self) -> bool:
        """Return whether the same job would fail again: it has to be changed, not retried."""
        return self.code in NEEDS_CHANGE


class JobState(WireModel, Generic[Figures]):
    """A job without those parts of its request that have fields of their own.

    `progress` runs from 0 to 1. `waiting_reason` says why no worker can take a waiting job, None where one can.
    `estimated_seconds` is the expected duration of an attempt, estimated when the job was submitted, and
    `estimated_seconds_deviation` the standard deviation of its logarithm, None for a formula alone. `seconds_left` are
    the least and the most seconds that a running attempt will still take, None in lists and where it is not known.
    `verdict` compares the model with the dense one, None where no quality was measured. `left_out` names fields of a
    long request that a list leaves out; the single job has them.
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
    seconds_left: list[float] | None = None
    error: JobError | None
    metrics: Figures | None
    verdict: Verdict | None = None
    model: str
    model_revision: str = ""
    warnings: list[str] = Field(default_factory=list)
    method: str
    sparsity: float | None = None
    pattern: str
    left_out: list[str] = Field(default_factory=list, exclude_if=lambda names: not names)

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def missed_gate(self) -> bool:
        """Return whether the job was pruned and stored, but does not meet a gate."""
        return self.status == "failed" and self.error is not None and self.error.code == "gate_missed"

    @property
    def needs_change(self) -> bool:
        """Return whether the job failed and would fail again: it has to be changed, not retried."""
        return self.status == "failed" and self.error is not None and self.error.needs_change


class JobEvent(WireModel):
    """One event.

    Types: status {status, …}, stage {stage}, progress {progress, …}, log {level, message}, metric {name, step, value}.
    `doing` of a progress event is the worker's current activity; such an event comes every few seconds even without
    progress.
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
    """Events after a number, oldest first. `next_after` is the number to continue after."""

    next_after: int


class JobAttempt(WireModel):
    """One attempt at a job: its worker, and its outcome (null while it runs).

    `outcome` released: the worker shut down and returned the job; lost: it stopped renewing its lease. `stages` are
    seconds by stage, `needs` is the estimate from the submit, `measured` the resources that a successful attempt used.
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
    """Attempts before a number, newest first. `next_after` is the number to continue from, null on the last page."""

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
    """Fit of a method to the model: whether it can prune the model, and if not, the reason."""

    method: str
    fits: bool
    reason: str | None


SecondsFrom = Literal["jobs", "jobs_of_other_methods", "pace", "formula"]


class EstimateBasis(WireModel):
    """Basis of an estimate.

    `formula` is computed from the model's headers and the job body. It is corrected by what so many `jobs` of the same
    queue and method took (0: none). The seconds are also corrected, where those are too few, by jobs of any method of
    the queue, or else by the pace of its workers; `seconds_from` says by which. `seconds_deviation` is the standard
    deviation of ln(measured / estimated) of the seconds; None for the formula alone.
    """

    jobs: int
    formula: dict[str, float | None]
    seconds_deviation: float | None = None
    seconds_from: Annotated[str, OneOf(SecondsFrom)] = "formula"


class Estimate(WireModel):
    """Estimated needs of a job.

    They are the peaks of memory, device memory (null on CPU workers) and disk, and the `seconds` of one attempt.
    `forward_tokens` counts images if the model is a classifier. `warnings` name the requests in the body that will
    probably not be met.
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
    """Estimated size of a job's artifact: the number of nonzero parameters, and the bytes of its tensors."""

    parameters: int
    bytes: int


class Inspection(ModelSummary, Generic[Body]):
    """Description of a model and of the methods that fit it.

    For a job body there are also the body with defaults (`job`), an estimate, and the size of the artifact where it is
    known in advance. `assumed` lists the required fields that the body lacked, with the values used instead.
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
    """Shell commands that run the artifact in one runtime, which needs these Python `packages`."""

    object: Literal["way_to_run"] = "way_to_run"
    runtime: str
    about: str
    packages: list[str]
    commands: str
