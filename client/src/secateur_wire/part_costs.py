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


class Times(WireModel):
    """Milliseconds of the prefill and of one decode step."""

    prefill_ms: float
    decode_ms: float


class SizeTimes(Times):
    """Times of a part of this size."""

    size: int


class CostsTable(WireModel):
    """Table of costs, at the sizes that were measured. `machine` names the processor, `version` is the engine's.

    `layers` is the depth of the models that were timed, `rounds` how often each was. `attention` is by KV groups, `ffn`
    by width, `vocabulary` by rows: embeddings and head together. `rest` is the same for every shape. Norms and residual
    sums count to the part that they belong to. `dense` is what the table predicts for the model as it is.
    """

    machine: str
    version: str
    measured_on: date
    threads: int
    layers: int
    rounds: int
    attention: list[SizeTimes]
    ffn: list[SizeTimes]
    vocabulary: list[SizeTimes]
    rest: Times
    dense: Times
    dense_standard_error: Times


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
