"""Requests for the samples: a real model and texts for a first job."""

from datetime import datetime
from typing import Annotated, Literal

from secateur_wire.base import OneOf, WireModel
from secateur_wire.plans import Goal
from secateur_wire.requests import RequestObject
from secateur_wire.states import SampleState


class SampleBody(RequestObject):
    """Request to register the samples; with a `goal`, the model is then pruned for it.

    For `speed` the job is the one of `secateur demo`, for any other goal that of a plan.
    """

    goal: Goal | None = None


class SampleError(WireModel):
    """Reason why the samples could not be fetched."""

    code: str
    message: str


class SampleRequest(WireModel):
    """A request for the samples, which a worker fetches. `step` is the current or the last step.

    `job_id` is the first job, if the request has a goal. `error` is the reason of a failure.
    """

    id: str
    object: Literal["sample_request"] = "sample_request"
    state: Annotated[str, OneOf(SampleState)]
    goal: Annotated[str, OneOf(Goal)] | None
    step: str | None
    job_id: str | None
    error: SampleError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def finished(self) -> bool:
        return self.state in ("ready", "failed")
