"""Jobs as requests and answers show them."""

from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from core.engine.recovery.request import Recovery
from core.pipeline.recipes.recipe import Output
from secateur_wire import job_body as wire
from secateur_wire import jobs
from secateur_wire.job_body import Calibration, Evaluation, Gates, Reference, Target, Vocabulary
from secateur_wire.jobs import JobState
from secateur_wire.metrics import Metrics
from secateur_wire.requests import inherited

DEFAULT_SEQUENCE_LENGTH = 2048
"""Tokens of a sequence, unless the model's context is shorter."""


class JobBody(wire.JobBody):
    __doc__ = wire.JobBody.__doc__

    recovery: Recovery | None = inherited(wire.JobBody, "recovery")
    output: Output = Field(default_factory=Output)


class Job(JobState[dict[str, Any]]):
    """A job: its state, its figures, and the request with defaults filled in.

    `model_revision` is the hash of the model's content when the job was submitted. `warnings` are the warnings of the
    estimate at that time. `waiting_reason` says why no worker of its queue can take a waiting job at the moment; null
    if one can, or if the job is not waiting. `estimated_seconds` is the expected duration of an attempt, estimated when
    the job was submitted. `estimated_seconds_deviation` is the standard deviation of its natural logarithm; null where
    neither jobs of this queue nor the pace of its workers were known. `seconds_left` are the least and the most seconds
    that a running attempt will still take, by the pace of its work; null in lists, and for a job that does not run.
    `verdict` compares the pruned model with the dense one. For a single job it also uses the team's own random pruning
    jobs on the same model; in lists it uses only the measurements of this release. `left_out` names fields that a list
    leaves out of a long request, such as vocabulary.keep; the single job has them.
    """

    not_promised = frozenset({"time_limit_seconds", "left_out"})

    target: Target | None
    parameters: dict[str, Any]
    calibration: Calibration | None
    vocabulary: Vocabulary | None = Field(None, exclude_if=lambda vocabulary: vocabulary is None)
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
        """Return `metrics` as a typed object; all of its fields are null where there are no metrics."""
        return Metrics.model_validate(self.metrics or {})


class InspectBody(BaseModel):
    """A model to describe, or a job body to check without submitting it."""

    model_config = ConfigDict(extra="allow")

    model: Reference


class Inspection(jobs.Inspection[JobBody]):
    """Facts of a model and the methods that fit it.

    For a job body it also has the body with defaults, an estimate of what the job needs, and the size of its artifact.
    The size is null where it cannot be known before the job (a latency target, shared weights) or nothing is pruned.
    """
