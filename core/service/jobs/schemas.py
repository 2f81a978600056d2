"""Jobs as requests and answers show them."""

from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from core.engine.recovery.request import Recovery
from core.pipeline.recipes.parts import Calibration, Evaluation, Gates, Output, Target
from core.validation import LabelName, RequestObject, spelled
from secateur_wire import jobs as wire
from secateur_wire.jobs import JobState
from secateur_wire.metrics import Metrics

_Reference = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_Label = Annotated[str, StringConstraints(max_length=500)]

MOST_LABELS = 50
"""Most labels in a job's metadata."""

DEFAULT_SEQUENCE_LENGTH = 2048
"""Tokens, where the model's context is not shorter."""


class JobBody(RequestObject):
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
    where one can, or the job does not wait. `estimated_seconds` is how long an attempt was expected to take when the
    job was submitted; `estimated_seconds_deviation` is the standard deviation of its natural logarithm, null until jobs
    of this queue and method have shown how exact the formula is. `verdict` also compares with the team's own jobs that
    removed as much of the same model at random, where one job is asked for; in lists it knows this release's
    measurements alone.
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

    @cached_property
    def measured(self) -> Metrics:
        """Return `metrics`, which are answered as they were stored, with types; none is set where there are none."""
        return Metrics.model_validate(self.metrics or {})


class InspectBody(BaseModel):
    """A model to look at, or a job body to try without submitting."""

    model_config = ConfigDict(extra="allow")

    model: _Reference


class Inspection(wire.Inspection[JobBody]):
    """Facts of a model and which methods fit; for a job body also the body with defaults, what it would need, and the
    size of its artifact, which is null where that is not known before (a latency to reach, shared weights) or nothing
    is pruned.
    """
