"""Measured costs of a model's parts in an engine."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from secateur_wire.base import OneOf, WireModel
from secateur_wire.requests import RequestObject

CostsStatus = Literal["not_measured", "waiting", "measured", "failed"]


class PartCostsBody(RequestObject):
    """Request for the costs of a model's parts: in which engine, and for which work.

    `type` is a type of the engine's files; by default the first one. `threads` are by default all processors of the
    worker. The prefill reads `prompt_tokens`; a decode step comes after `context_tokens`, the prompt included. The
    measurement runs on a worker of `queue`, while it has no job.
    """

    model: Annotated[str, Field(min_length=1, max_length=300)]
    engine: Annotated[str, Field(min_length=1, max_length=100)]
    type: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    threads: Annotated[int | None, Field(ge=1, le=1024)] = None
    batch: Annotated[int, Field(ge=1, le=64)] = 1
    prompt_tokens: Annotated[int, Field(ge=1, le=32768)] = 128
    context_tokens: Annotated[int, Field(ge=1, le=131072)] = 128
    queue: Annotated[str, Field(min_length=1, max_length=100)] = "default"


class Costs(WireModel):
    """Milliseconds of the parts in one kind of pass, at the sizes that were measured.

    `attention` is by KV groups, `ffn` by width, `vocabulary` by rows: embeddings and head together. `rest` is the same
    in every pass. Norms and residual sums count to the part that they belong to.
    """

    attention: dict[int, float]
    ffn: dict[int, float]
    vocabulary: dict[int, float]
    rest: float


class Predicted(WireModel):
    """Milliseconds of one kind of pass of a whole model: the sum over its parts, and its standard error."""

    milliseconds: float
    standard_error: float


class CostsTable(WireModel):
    """Table of costs. `machine` names the processor, `version` is the engine's.

    `layers` is the depth of the models that were timed, `rounds` how often each was. `dense_prefill` and `dense_decode`
    are what the table predicts for the model as it is.
    """

    machine: str
    version: str
    measured_on: date
    threads: int
    layers: int
    rounds: int
    prefill: Costs
    decode: Costs
    dense_prefill: Predicted
    dense_decode: Predicted


class PartCostsError(WireModel):
    """Reason why costs could not be measured."""

    code: str
    message: str


class PartCostsAnswer(WireModel):
    """Costs of a model's parts in an engine, as far as they are measured.

    `error` says why a measurement failed, such as `latency_too_noisy`; POST /v1/part-costs has it done again.
    """

    object: Literal["part_costs"] = "part_costs"
    model: str
    engine: str
    type: str
    batch: int
    prompt_tokens: int
    context_tokens: int
    queue: str
    status: Annotated[str, OneOf(CostsStatus)]
    table: CostsTable | None
    error: PartCostsError | None
