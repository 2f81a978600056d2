"""Jobs as requests and answers show them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from core.catalogue.targets import Target
from core.engine.architectures.describe import ShownDescription
from core.engine.architectures.heterogeneous import Layout
from core.engine.options.recovery import Recovery
from core.service.jobs.states import AttemptOutcome, EventType, JobStatus, Stage
from core.validation import LabelName, Part, spelled

_Reference = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_Samples = Annotated[int, Field(ge=1, le=1_000_000)]
_Prompt = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
_SequenceLength = Annotated[int, Field(ge=2, le=1_048_576)]
_Label = Annotated[str, StringConstraints(max_length=500)]

MOST_LABELS = 50
"""Most labels in a job's metadata."""

DEFAULT_SEQUENCE_LENGTH = 2048
"""Tokens, where the model's context is not shorter."""


class Calibration(Part):
    """The calibration set: `samples` sequences (null: all there are) of `sequence_length` tokens, or so many images."""

    dataset: _Reference = Field(
        description="A registered text's name, one of the hub (wikitext, c4, org/name[@revision][:config[:split]]), or "
        "self: text the model itself writes. For image classifiers a set of labelled images."
    )
    samples: _Samples | None = 128
    sequence_length: _SequenceLength | None = Field(None, description="Unset: 2048, or the model's context if shorter.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    generated: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Language models: sequences of text that the model itself writes, beside those of the dataset, so "
        "that what it knows beyond that text counts too. Unset: none; with frontier, quick, a quarter "
        "of the samples, at most 64; thorough, three times as many beside them, at most 96.",
    )


class Evaluation(Part):
    """What is measured, dense and pruned: the perplexity of texts, on `samples` windows (null: all there are) of each,
    or a classifier's accuracy and loss on so many images of each; the zero-shot accuracy on tasks, on the first
    `task_limit` questions (null: all there are) of each; and what both write after `prompts`, for people to read.
    """

    datasets: Annotated[list[_Reference], Field(max_length=20)] = Field(default_factory=list)
    sequence_length: _SequenceLength | None = Field(
        None, description="Unset: the calibration's, else 2048, or the model's context if shorter."
    )
    samples: _Samples | None = None
    tasks: Annotated[list[_Reference], Field(max_length=50)] = Field(
        default_factory=list,
        description="boolq, piqa, hellaswag, winogrande, arc_easy, arc_challenge, openbookqa: tasks of "
        "lm-evaluation-harness, without examples.",
    )
    task_limit: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    prompts: Annotated[list[_Prompt], Field(max_length=8)] = Field(
        default_factory=list,
        description="Texts for dense and pruned to go on from, greedily; the report's `generations` shows both. Taken "
        "as they are, without a chat template. Language models only.",
    )
    prompt_tokens: Annotated[int, Field(ge=1, le=256)] = Field(
        48, description="New tokens after each prompt, at most: a model may end a text before."
    )


class Gates(Part):
    """Limits a job must keep to succeed. Where a figure could not be measured, its gate is missed."""

    max_perplexity_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest pruned / dense perplexity, on every evaluation dataset."
    )
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="Image classifiers: how much lower top-1 accuracy may be than the dense model's, 0.01 being "
        "one point, on every evaluation dataset.",
    )
    max_task_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="How much lower accuracy may be on every zero-shot task, and in the mean of several."
    )
    max_latency_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest pruned / dense time. Leave room for the spread of timings, which the report gives."
    )
    max_bytes: Annotated[int, Field(gt=0)] | None = Field(
        None, description="Most bytes of weights as they are stored, packed or hashed where they are."
    )
    max_bytes_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest stored / dense bytes of weights."
    )
    max_parameters: Annotated[int, Field(gt=0)] | None = Field(None, description="Most parameters that are not zero.")


class Output(Part):
    """The form of the checkpoint."""

    format: Literal["dense", "packed", "hashed"] = Field(
        "dense",
        description="packed: bitmasks and surviving values. hashed, of image classifiers: the weights of every linear "
        "layer are made to share a few values, which a hash of their places chooses (HashedNets), and those are "
        "stored. `secateur download --unpack` restores both bit by bit.",
    )
    compression: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="hashed: values stored for each weight of a linear layer, zeros counted; unset: 1/8.",
    )
    dtype: Literal["keep"] = "keep"
    layout: Layout = Field(
        "uniform",
        description="Of what is left when heads and channels go. uniform: every layer gets the same shape, and the "
        "model loads everywhere. per_layer: layers may differ, and `from_pretrained` needs trust_remote_code=True. "
        "Where nothing gets narrower, the model's own.",
    )


class JobBody(Part):
    """A job to run. See /v1/methods for methods, their patterns and parameters."""

    model: _Reference = Field(
        description="A registered model's name, org/name[@revision] on the hub, or job:ID for the artifact of a job."
    )
    method: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    sparsity: float | None = Field(
        None,
        description="Share of prunable weights to make zero, or, structured, of the model's parameters to remove. Not "
        "needed with n:m, nor with a target, which it is filled in from (not from a latency, which a worker measures).",
    )
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        None, description="unstructured, n:m (keep n of every m) or structured; unset: what the method does."
    )
    target: Target | None = Field(
        None,
        description="In place of sparsity: what the artifact may have at most. Not with n:m, which fixes what goes.",
    )
    parameters: dict[str, Any] = Field(default_factory=dict)
    calibration: Calibration | None = None
    evaluation: Evaluation = Field(default_factory=Evaluation)
    recovery: Recovery | None = Field(None, description="Training after pruning.")
    gates: Gates = Field(default_factory=Gates)
    output: Output = Field(default_factory=Output)
    queue: Annotated[
        str,
        spelled(
            r"^[a-z0-9][a-z0-9_-]{0,62}$",
            "1 to 63 lowercase letters a to z, digits, hyphens and underscores, the first a letter or a digit",
        ),
    ] = "default"
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(0, description="Higher goes first.")
    time_limit_seconds: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Of one attempt; never more than the service's own limit, which holds where this is unset."
    )
    metadata: Annotated[dict[LabelName, _Label], Field(max_length=MOST_LABELS)] = Field(default_factory=dict)


class JobError(BaseModel):
    """How a job ended badly. `retryable`: another attempt could end differently."""

    code: str
    message: str
    param: str | None
    retryable: bool


class Job(BaseModel):
    """A job: its life, its figures, and the request with defaults filled in.

    `model_revision` is the hash of the content that `model` meant when the job was submitted, `warnings` those of its
    estimate then. `waiting_reason` says why no worker of its queue can take a job that waits, as the fleet is now; null
    where one can, or the job does not wait.
    """

    model_config = ConfigDict(protected_namespaces=())

    id: str
    object: Literal["job"]
    status: JobStatus
    stage: Stage | None
    progress: float
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    waiting_reason: str | None
    error: JobError | None
    metrics: dict[str, Any] | None
    model: str
    model_revision: str
    warnings: list[str]
    method: str
    sparsity: float | None
    pattern: str
    target: Target | None
    parameters: dict[str, Any]
    calibration: Calibration | None
    evaluation: Evaluation
    recovery: Recovery | None
    gates: Gates
    output: Output
    queue: str
    priority: int
    time_limit_seconds: float | None = None
    metadata: dict[str, str]


class JobEvent(BaseModel):
    """One event. Types: status {status, …}, stage {stage}, progress {progress, …; `doing` says what
    the worker is at, and one comes every few seconds even where there is no progress}, log {level, message}, metric
    {name, step, value}.
    """

    sequence: int
    type: EventType
    created_at: datetime
    attempt: int
    data: dict[str, Any]


class EventPage(BaseModel):
    """Events after a number, oldest first. `next_after` is the number to go on from."""

    data: list[JobEvent]
    has_more: bool
    next_after: int


class JobAttempt(BaseModel):
    """One attempt at a job: the worker that held it, and how it ended (null while it runs).

    `outcome` released: the worker shut down and gave the job back; lost: it stopped renewing its lease. `stages` are
    seconds by stage, `needs` the estimate made when the job was submitted, `measured` what a success took.
    """

    attempt: int
    worker_id: str
    queue: str
    started_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome | None
    error_code: str | None
    stages: dict[str, float] | None
    needs: dict[str, Any] | None
    measured: dict[str, Any] | None


class AttemptPage(BaseModel):
    """Attempts before a number, newest first. `next_after` is the number to go on from, null on the last page."""

    data: list[JobAttempt]
    has_more: bool
    next_after: int | None


class ArtifactFile(BaseModel):
    """One file of an artifact."""

    path: str
    bytes: int
    sha256: str


class ArtifactList(BaseModel):
    """All files of an artifact."""

    data: list[ArtifactFile]
    has_more: Literal[False]
    next_after: None


class InspectBody(BaseModel):
    """A model to look at, or a job body to try without submitting."""

    model_config = ConfigDict(extra="allow")

    model: _Reference


class MethodFit(BaseModel):
    """Whether a method fits the model, and why not."""

    method: str
    fits: bool
    reason: str | None


class EstimateBasis(BaseModel):
    """Where an estimate comes from: `formula` from the model's headers and the job body, corrected by what so many
    `jobs` of the same queue and method took (0: the formula alone).
    """

    jobs: int
    formula: dict[str, float | None]


class Estimate(BaseModel):
    """What a job will need: peaks of memory, device memory (null on CPU workers) and disk; `seconds` of one attempt.
    `forward_tokens` are images where the model is a classifier. `warnings` say what the body asks for and will most
    likely not get.
    """

    peak_memory_bytes: int
    peak_device_memory_bytes: int | None
    disk_bytes: int
    seconds: float
    forward_tokens: int
    floating_point_operations: int
    warnings: list[str]
    basis: EstimateBasis


class ExpectedArtifact(BaseModel):
    """About what a job's artifact will have: parameters that are not zero, and bytes of its tensors."""

    parameters: int
    bytes: int


class Inspection(ShownDescription):
    """What a model is and which methods fit; for a job body also the body with defaults, what it would need, and the
    size of its artifact, which is null where that is not known before (a latency to reach, shared weights) or nothing
    is pruned.
    """

    model_config = ConfigDict(protected_namespaces=())

    object: Literal["inspection"]
    model: str
    model_revision: str
    methods: list[MethodFit]
    job: JobBody | None
    estimate: Estimate | None
    artifact: ExpectedArtifact | None
