"""Answers of the server. Fields this release does not know are kept, so a newer server loses nothing on the way."""

from datetime import datetime
from typing import Final, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from secateur.errors import GateMissed, JobCancelled, JobFailed

UploadKind = Literal["model", "dataset"]
UploadStatus = Literal["open", "complete", "failed"]
JobStatus = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
JobSort = Literal["newest", "oldest", "model", "method", "status", "finished"]
FINISHED: Final[frozenset[JsonValue]] = frozenset({"succeeded", "failed", "cancelled"})

Item = TypeVar("Item")


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Page(Answer, Generic[Item]):
    """One page of a list; `next_after` is the cursor of the next."""

    data: list[Item]
    has_more: bool
    next_after: str | int | None = None


class Paper(Answer):
    """Paper that a method comes from."""

    title: str
    authors: str
    year: int
    url: str


class Needs(Answer):
    """Requirements of a method besides the weights."""

    calibration: bool
    gradients: bool
    training: bool


class Method(Answer):
    """A pruning method; `parameters` is the JSON schema of what it takes."""

    id: str
    title: str
    summary: str = ""
    description: str = ""
    gains: str = ""
    paper: Paper | None
    task_families: list[str]
    patterns: list[str]
    needs: Needs
    parameters: dict[str, JsonValue]


class Model(Answer):
    """A registered model. `revision` is the hash of its content."""

    id: str
    name: str
    source: str
    revision: str
    family: str
    architecture: str
    parameters: int
    prunable_parameters: int
    bytes: int
    dtype: str
    created_at: datetime


class Dataset(Answer):
    """A registered text, or image set: `images` is None for texts, `documents` and `characters` are 0 for images."""

    id: str
    name: str
    source: str
    format: str
    documents: int
    characters: int
    images: int | None = None
    classes: int | None = None
    bytes: int
    sha256: str
    created_at: datetime


class MethodFit(Answer):
    """Fit of a method to a model: whether it can prune it, and if not why."""

    method: str
    fits: bool
    reason: str | None


class Estimate(Answer):
    """Estimated needs of a job: peaks of memory, of the device's memory (None on a CPU) and disk, and time.

    `warnings` say what it asks for and will most likely not get.
    """

    peak_memory_bytes: int
    peak_device_memory_bytes: int | None = None
    disk_bytes: int
    seconds: float | None = None
    warnings: list[str] = []


class ExpectedArtifact(Answer):
    """Estimated size of a job's artifact: parameters that are not zero, and bytes of its tensors."""

    parameters: int
    bytes: int


class Inspection(Answer):
    """Description of a model and which methods fit.

    For a job body there are also the body with defaults (`job`), an estimate, and the size of the artifact where it is
    known before.
    """

    model: str
    family: str
    architecture: str
    parameters: int
    prunable_parameters: int
    bytes: int
    dtype: str
    layers: int
    task: str = "language-model"
    hidden_size: int | None = None
    vocabulary_size: int | None = None
    context_length: int | None = None
    classes: int | None = None
    methods: list[MethodFit]
    job: dict[str, JsonValue] | None
    estimate: Estimate | None
    artifact: ExpectedArtifact | None = None


class Problem(Answer):
    """Error of a failed job. `code` is stable."""

    code: str
    message: str
    param: str | None = None
    retryable: bool = False


class Perplexity(Answer):
    """Perplexity on one evaluation set: `ratio` is pruned over dense; `before_recovery` is pruned, before training."""

    dense: float | None = None
    before_recovery: float | None = None
    pruned: float | None = None
    ratio: float | None = None
    sequence_length: int | None = None


class Accuracy(Answer):
    """Top-1 accuracy of a classifier on one evaluation set, with standard errors.

    The losses are means in nats, over `samples` images.
    """

    dense: float | None = None
    before_recovery: float | None = None
    pruned: float | None = None
    dense_stderr: float | None = None
    pruned_stderr: float | None = None
    dense_loss: float | None = None
    pruned_loss: float | None = None
    samples: int | None = None


class Operations(Answer):
    """Floating-point operations of one forward over one image."""

    dense: int | None = None
    pruned: int | None = None


class TaskAccuracy(Answer):
    """Zero-shot accuracy on a task, with standard errors, over `samples` questions. `metric`: acc, or acc_norm."""

    dense: float | None = None
    pruned: float | None = None
    dense_stderr: float | None = None
    pruned_stderr: float | None = None
    metric: str | None = None
    samples: int | None = None


class TaskMean(Answer):
    """The mean accuracy of all tasks."""

    dense: float | None = None
    pruned: float | None = None


class Sparsity(Answer):
    """The share of zeros reached, over prunable weights and over the whole model."""

    prunable: float | None = None
    model: float | None = None


class Parameters(Answer):
    """Numbers of parameters."""

    dense: int | None = None
    nonzero: int | None = None


class Sizes(Answer):
    """Bytes of the weights, and of their files where they are packed or hashed."""

    dense: int | None = None
    artifact: int | None = None
    packed: int | None = None
    hashed: int | None = None

    @property
    def stored(self) -> int | None:
        """Return the bytes of the weights as they are stored."""
        return next((each for each in (self.packed, self.hashed) if each is not None), self.artifact)


class Latency(Answer):
    """Milliseconds, measured alternately in one run. `noise` is the relative difference that proves nothing."""

    dense_ms: float | None = None
    pruned_ms: float | None = None
    noise: float | None = None


class TargetReached(Answer):
    """Target of the job and what the artifact reached: `kind` is parameters, bytes or latency_ratio.

    `spread` is by how much, relative, the timings of a latency differ; `sparsity` is the one the target resolved to.
    """

    kind: str
    asked: float
    reached: float
    met: bool
    spread: float = 0.0
    sparsity: float | None = None


class Seconds(Answer):
    """Wall time."""

    prune: float | None = None
    total: float | None = None


class Metrics(Answer):
    """The figures of a job, as far as it came."""

    perplexity: dict[str, Perplexity] = {}
    accuracy: dict[str, Accuracy] = {}
    flops: Operations | None = None
    tasks: dict[str, TaskAccuracy] = {}
    task_mean: TaskMean | None = None
    sparsity: Sparsity | None = None
    parameters: Parameters | None = None
    bytes: Sizes | None = None
    latency: Latency | None = None
    target: TargetReached | None = None
    seconds: Seconds | None = None
    peak_memory_bytes: int | None = None


class Job(Answer):
    """Job with every field of its body, defaults filled in.

    `progress` runs from 0 to 1. `waiting_reason` says why no worker can take a job that waits, None where one can.
    """

    id: str
    status: JobStatus
    stage: str | None
    progress: float
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    waiting_reason: str | None = None
    error: Problem | None
    metrics: Metrics | None
    warnings: list[str] = []
    model: str
    method: str
    pattern: str
    sparsity: float | None = None
    target: dict[str, float] | None = None
    recovery: dict[str, JsonValue] | None = None
    gates: dict[str, float | None] = {}
    queue: str = "default"
    priority: int = 0
    metadata: dict[str, str] = {}

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def missed_gate(self) -> bool:
        """Tell whether it was pruned and stored, but is worse than a gate of the job allows."""
        return self.status == "failed" and self.error is not None and self.error.code == "gate_missed"

    def raise_for_status(self) -> Self:
        """Return the job itself where it succeeded: `client.wait(job_id).raise_for_status()`.

        Raises GateMissed, JobFailed or JobCancelled, and ValueError where the job has not ended.
        """
        if self.status == "succeeded":
            return self
        if not self.finished:
            raise ValueError(f"{self.id} has not ended, it is {self.status}: wait for it first")
        if self.status == "cancelled":
            raise JobCancelled(self)
        raise (GateMissed if self.missed_gate else JobFailed)(self)


class Event(Answer):
    """One thing that happened to a job. `sequence` counts from 1 within the job; what `data` holds goes by `type`.

    `status` {status}, `stage` {stage}, `progress` {progress 0…1, block, blocks}, `log` {level, message},
    `metric` {name, step, value}.
    """

    sequence: int
    type: str
    created_at: datetime
    attempt: int
    data: dict[str, JsonValue]

    @property
    def ends_job(self) -> bool:
        return self.type == "status" and self.data.get("status") in FINISHED


class ArtifactFile(Answer):
    """A file of an artifact. `path` is relative, with forward slashes."""

    path: str
    bytes: int
    sha256: str


class UploadFile(Answer):
    """A file of an upload and how many of its bytes the server has."""

    path: str
    bytes: int
    sha256: str
    received: int


class UploadFailure(Answer):
    """Error of an upload that cannot become what it was announced as."""

    code: str
    message: str


class Upload(Answer):
    """A model or dataset on its way to the server, in parts of at most `part_bytes`."""

    id: str
    kind: Literal["model", "dataset"]
    name: str
    status: str
    files: list[UploadFile]
    part_bytes: int
    error: UploadFailure | None = None
    expires_at: datetime
    created_at: datetime


class UploadedPart(Answer):
    """Bytes of a file the server has after a part of it arrived."""

    path: str
    bytes: int
    received: int
