"""Body of a job: the request for it, as every client writes it and the server reads it.

Ids of what the server has a registry of (methods, recoveries, forms of output) are texts here: the server knows which
there are.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from secateur_wire.recovery import Recovery
from secateur_wire.requests import LabelName, RequestObject, spelled

Layout: TypeAlias = Literal["uniform", "per_layer"]
Reference = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_Samples = Annotated[int, Field(ge=1, le=1_000_000)]
_Prompt = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
_SequenceLength = Annotated[int, Field(ge=2, le=1_048_576)]
_Size = Annotated[int, Field(ge=1, le=10**18)]
_Label = Annotated[str, StringConstraints(max_length=500)]

MOST_LABELS = 50
"""Most labels in a job's metadata."""


class Calibration(RequestObject):
    """The calibration set: `samples` sequences (null: all there are) of `sequence_length` tokens, or so many images."""

    dataset: Reference = Field(
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


class Evaluation(RequestObject):
    """Measurements, dense and pruned: the perplexity of texts, on `samples` windows (null: all there are) of each, or a
    classifier's accuracy and loss on so many images of each; the zero-shot accuracy on tasks, on the first `task_limit`
    questions (null: all there are) of each; and what both write after `prompts`, for people to read.
    """

    datasets: Annotated[list[Reference], Field(max_length=20)] = Field(default_factory=list)
    sequence_length: _SequenceLength | None = Field(
        None, description="Unset: the calibration's, else 2048, or the model's context if shorter."
    )
    samples: _Samples | None = None
    tasks: Annotated[list[Reference], Field(max_length=50)] = Field(
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


class ModelLimits(RequestObject):
    """Limits of the model that comes out. Where a figure could not be measured, its limit is missed."""

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


class Gates(ModelLimits):
    """Limits a job must keep to succeed. Where a figure could not be measured, its gate is missed."""

    max_export_kl: Annotated[float, Field(gt=0)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Largest mean KL divergence, in nats, of a file of output.exports from the artifact.",
    )


class Export(RequestObject):
    """A form that is added to the artifact once that is verified: a file of each type."""

    format: str
    types: list[str] = Field(min_length=1, max_length=20)


class Output(RequestObject):
    """The form of the checkpoint."""

    format: str = "dense"
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
    exports: Annotated[Sequence[Export], Field(max_length=20)] = Field(
        default_factory=list,
        exclude_if=lambda value: not value,
        description="Forms that are added to the artifact, each run by what it is for before the job ends. Language "
        "models only.",
    )


def _is_none(value: object) -> bool:
    return value is None


class Target(RequestObject, frozen=True):
    """Limit of the artifact, one of the three; the others are left out where it is shown."""

    parameters: _Size | None = Field(
        None,
        exclude_if=_is_none,
        description="Structured: parameters of the artifact. Else: parameters that are not zero, of all.",
    )
    bytes: _Size | None = Field(
        None,
        exclude_if=_is_none,
        description="Bytes of the artifact's tensors, as `metrics.bytes.artifact` counts them; packed, as "
        "`report.packed.bound_bytes`. Headers of the files, some hundred bytes a tensor, come on top.",
    )
    latency_ratio: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        exclude_if=_is_none,
        description="Structured: pruned / dense milliseconds of a prefill of one sequence, on the job's own worker, as "
        "`metrics.latency` measures them. The sparsity is searched for by the worker.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for _, value in self) != 1:
            raise ValueError('name exactly one of parameters, bytes and latency_ratio, such as {"parameters": 1e8}')
        return self

    @property
    def kind(self) -> str:
        return next(name for name, value in self if value is not None)

    @property
    def limit(self) -> float:
        limit: float = getattr(self, self.kind)
        return limit


class JobBody(RequestObject):
    """A job to run. See /v1/methods for methods, their patterns and parameters."""

    model: Reference = Field(
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
