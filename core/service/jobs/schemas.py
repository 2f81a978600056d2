"""Jobs as requests and answers show them."""

from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from core.engine.recovery.request import Recovery
from core.pipeline.recipes.parts import Output
from secateur_wire import job_body as wire
from secateur_wire import jobs
from secateur_wire.job_body import Calibration, Evaluation, Gates, Reference, Target
from secateur_wire.jobs import JobState
from secateur_wire.metrics import Metrics
from secateur_wire.requests import inherited

DEFAULT_SEQUENCE_LENGTH = 2048
"""Tokens, where the model's context is not shorter."""


class JobBody(wire.JobBody):
    __doc__ = wire.JobBody.__doc__

    recovery: Recovery | None = inherited(wire.JobBody, "recovery")
    output: Output = Field(default_factory=Output)


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

    model: Reference


class Inspection(jobs.Inspection[JobBody]):
    """Facts of a model and which methods fit; for a job body also the body with defaults, what it would need, and the
    size of its artifact, which is null where that is not known before (a latency to reach, shared weights) or nothing
    is pruned.
    """
