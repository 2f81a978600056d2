"""Jobs as requests and answers show them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from core.engine.architectures.heterogeneous import Layout
from core.engine.options.recovery import Recovery
from core.pipeline.recipes.sizes import Target
from core.validation import LabelName, Part, spelled
from secateur_wire import jobs as wire
from secateur_wire.jobs import JobState

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
    """Measurements, dense and pruned: the perplexity of texts, on `samples` windows (null: all there are) of each, or a
    classifier's accuracy and loss on so many images of each; the zero-shot accuracy on tasks, on the first `task_limit`
    questions (null: all there are) of each; and what both write after `prompts`, for people to read.
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


class Job(JobState[dict[str, Any]]):
    """A job: its life, its figures, and the request with defaults filled in.

    `model_revision` is the hash of the content that `model` meant when the job was submitted, `warnings` those of its
    estimate then. `waiting_reason` says why no worker of its queue can take a job that waits, as the fleet is now; null
    where one can, or the job does not wait.
    """

    not_promised = frozenset({"time_limit_seconds"})

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


class InspectBody(BaseModel):
    """A model to look at, or a job body to try without submitting."""

    model_config = ConfigDict(extra="allow")

    model: _Reference


class Inspection(wire.Inspection[JobBody]):
    """Facts of a model and which methods fit; for a job body also the body with defaults, what it would need, and the
    size of its artifact, which is null where that is not known before (a latency to reach, shared weights) or nothing
    is pruned.
    """
