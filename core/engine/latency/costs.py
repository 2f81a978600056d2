"""Measured costs of a model's parts, and the latency of any shape as their sum."""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from math import sqrt
from typing import Final, NamedTuple

from pydantic import BaseModel

from core.engine.exporters.engine_process import SpeedTrial
from core.engine.latency.variants import BlockVariant, ModelShape
from secateur_wire.errors import Conflict

DECODED_TOKENS: Final = 24
"""Tokens that are decoded in a timed round."""
_MEDIAN_ERROR: Final = 1.2533 * 1.4826
"""Standard error of a median of n normal times, times √n, over their median absolute deviation: 1.4826 of these are the
standard deviation, and √(π / 2) is the error of a median over that of a mean."""


class Latency(NamedTuple):
    """Milliseconds of the prefill of a prompt, and of one decode step after it."""

    prefill_ms: float
    decode_ms: float


class Workload(BaseModel, frozen=True):
    """Work that is timed. `engine` is an engine's id, `type` one of its types of files, such as Q8_0.

    The prefill reads a prompt of `prompt_tokens`, and the decode step comes after it. Without `threads` all processors
    of the machine are meant; a table has their number.
    """

    engine: str
    type: str
    threads: int | None = None
    prompt_tokens: int = 128

    @property
    def used_threads(self) -> int:
        """Return the number of threads on this machine."""
        return self.threads or len(os.sched_getaffinity(0))

    def trial(self, most_rounds: int, seconds: float) -> SpeedTrial:
        """Return a trial of this work, of at most so many rounds."""
        return SpeedTrial(
            prompt=self.prompt_tokens,
            decoded=DECODED_TOKENS,
            most_rounds=most_rounds,
            seconds=seconds,
        )


class ModelWidths(BaseModel, frozen=True):
    """Sizes that all models have which one table is for. `block` is the dense variant, `vocabulary` the dense rows."""

    architecture: str
    hidden_size: int
    head_size: int
    heads_per_group: int
    block: BlockVariant
    vocabulary: int
    is_tied: bool


class PassCosts(BaseModel, frozen=True):
    """Milliseconds of the parts in one kind of pass, at the sizes that were measured.

    `attention` is by KV groups, `ffn` by width, `vocabulary` by rows: embeddings and head together. `rest` is
    the same in every pass. Norms and residual sums count to the part that they belong to.
    """

    attention: dict[int, float]
    ffn: dict[int, float]
    vocabulary: dict[int, float]
    rest: float

    def attention_ms(self, kv_groups: int) -> float:
        return interpolated(self.attention, kv_groups)

    def ffn_ms(self, width: int) -> float:
        return interpolated(self.ffn, width)

    def vocabulary_ms(self, rows: int) -> float:
        return interpolated(self.vocabulary, rows)

    def total_ms(self, shape: ModelShape) -> float:
        """Return the milliseconds of a whole model: the sum over its parts."""
        layers = sum(self.attention_ms(each.kv_groups) + self.ffn_ms(each.ffn_width) for each in shape.layers)
        return layers + self.vocabulary_ms(shape.vocabulary) + self.rest


class RoundCosts(BaseModel, frozen=True):
    """Costs of the parts in both kinds of passes."""

    prefill: PassCosts
    decode: PassCosts


class PartCosts(RoundCosts, frozen=True):
    """Costs of a model's parts for a workload on a machine: medians over rounds, and the costs from each round alone.

    `machine` names the processor, `version` is the engine's, `layers` the depth of the models that were timed.
    """

    workload: Workload
    model: ModelWidths
    machine: str
    version: str
    measured_on: date
    layers: int
    rounds: list[RoundCosts]

    def attention(self, kv_groups: int) -> Latency:
        """Return the cost of one layer's attention with so many KV groups; nothing where there are 0."""
        return _both(self, lambda costs: costs.attention_ms(kv_groups))

    def ffn(self, width: int) -> Latency:
        """Return the cost of one layer's FFN of this width; nothing where it is 0."""
        return _both(self, lambda costs: costs.ffn_ms(width))

    def vocabulary(self, rows: int) -> Latency:
        """Return the cost of embeddings and head of so many rows."""
        return _both(self, lambda costs: costs.vocabulary_ms(rows))

    @property
    def rest(self) -> Latency:
        """Return the cost that does not depend on the shape."""
        return _both(self, lambda costs: costs.rest)

    def predict(self, shape: ModelShape) -> Latency:
        """Return the latency of a model of this shape: the sum of its parts' costs and the rest."""
        return _both(self, lambda costs: costs.total_ms(shape))

    def standard_errors(self, shape: ModelShape) -> Latency:
        """Return the standard errors of a prediction, from its spread between the rounds."""
        predicted = [_both(each, lambda costs: costs.total_ms(shape)) for each in self.rounds]
        return Latency(*(standard_error(times) for times in zip(*predicted, strict=True)))

    def require_usable(self, workload: Workload, model: ModelWidths, *, machine: str, version: str) -> None:
        """Require that the table is for this workload, model, machine and version; raises Conflict that names both."""
        pairs: Mapping[str, tuple[object, object]] = {
            "workload": (self.workload, workload),
            "model": (self.model, model),
            "machine": (self.machine, machine),
            f"version of {self.workload.engine}": (self.version, version),
        }
        for name, (measured, wanted) in pairs.items():
            if measured != wanted:
                raise Conflict(
                    f"the costs of parts were measured for the {name} {measured}, not for {wanted}: measure them again"
                )


def interpolated(costs: Mapping[int, float], size: int) -> float:
    """Return the cost at a size, on straight lines between the sizes that were measured; size 0 costs nothing.

    Below the smallest, the line through the two smallest goes on, down to 0. A single measured size is proportional.
    Raises ValueError above the largest.
    """
    if size == 0:
        return 0.0
    if not 0 < size <= max(costs):
        raise ValueError(f"size {size}: the costs were measured from {min(costs)} to {max(costs)}")
    if size in costs:
        return costs[size]
    if len(costs) == 1:
        ((only, cost),) = costs.items()
        return cost * size / only
    sizes = sorted(costs)
    above = next(place for place in range(1, len(sizes)) if sizes[place] > size)
    low, high = sizes[above - 1], sizes[above]
    slope = (costs[high] - costs[low]) / (high - low)
    return max(costs[low] + slope * (size - low), 0.0)


def standard_error(times: Sequence[float]) -> float:
    """Return the standard error of the median of independent times; infinity where there is only one.

    It is that of the times' bulk: a few rounds in which the machine did something else move neither it nor the median.
    """
    if len(times) < 2:
        return float("inf")
    middle = statistics.median(times)
    return _MEDIAN_ERROR * statistics.median(abs(each - middle) for each in times) / sqrt(len(times))


def _both(costs: RoundCosts, cost: Callable[[PassCosts], float]) -> Latency:
    return Latency(cost(costs.prefill), cost(costs.decode))
