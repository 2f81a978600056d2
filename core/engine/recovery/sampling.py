"""Sampling of the sequences of each training step.

In order: every sequence once, shuffled, then all again. Adaptive, as in LoRAShear (Chen 2023, arXiv:2310.18356, section
3.4): stage after stage, each from its own texts. Every round of a stage trains on a subset drawn from its texts in
proportion to the model's loss of quality on each, measured when the round begins. A stage ends when a round has
recovered nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from core.engine.recovery.request import Recovery


class Sampling(Protocol):
    """Source of the sequences of each step; `rounds` is the state to save for a resumed run, as JSON."""

    rounds: list[dict[str, Any]]

    def begin(self, step: int, loss: Callable[[Tensor], float]) -> bool:
        """Prepare a step, counted from 0; return False to skip it. `loss` computes the model's loss on sequences."""

    def batch(self, step: int) -> list[int]:
        """Return the sequences of a step, by number."""


class InOrder:
    """Sampling of all `count` sequences in random order, then of all in another order."""

    def __init__(self, count: int, recovery: Recovery) -> None:
        self._count, self._recovery = count, recovery
        self.rounds: list[dict[str, Any]] = []

    def begin(self, step: int, loss: Callable[[Tensor], float]) -> bool:
        """Return True: no step is skipped."""
        return True

    def batch(self, step: int) -> list[int]:
        size, seed = self._recovery.batch_size, self._recovery.seed
        places = range(step * size, (step + 1) * size)
        return [_order(self._count, seed, place // self._count)[place % self._count] for place in places]


@dataclass(frozen=True)
class Source:
    """Text of a stage: sequences to train on, and others to measure on, [sequences, time].

    `reference` is the reference model's loss on the latter, in nats per token.
    """

    name: str
    stage: int
    windows_NT: Tensor
    holdout_NT: Tensor
    reference: float


class Adaptive:
    """Adaptive sampling, as the module defines it; sequences are numbered through all sources, in their order."""

    def __init__(self, sources: Sequence[Source], recovery: Recovery) -> None:
        assert recovery.stages is not None and recovery.resample_every is not None
        self._sources, self._recovery = sources, recovery
        self._size, self._every = recovery.batch_size, recovery.resample_every
        self._ends = list(accumulate((stage.steps for stage in recovery.stages), initial=0))
        self._source_starts = list(accumulate((len(each.windows_NT) for each in sources), initial=0))
        self.rounds: list[dict[str, Any]] = []

    def begin(self, step: int, loss: Callable[[Tensor], float]) -> bool:
        """Measure the losses at the start of a round; return False once the stage of this step has ended."""
        stage, start, end = self._stage(step)
        own_rounds = [each for each in self.rounds if each["stage"] == stage]
        if own_rounds and own_rounds[-1]["is_over"]:
            return False
        if (step - start) % self._every == 0 and (not own_rounds or own_rounds[-1]["step"] < step):
            lost = {
                number: max(0.0, loss(source.holdout_NT) - source.reference)
                for number, source in enumerate(self._sources)
                if source.stage == stage
            }
            mean = sum(lost.values()) / len(lost)
            is_over = bool(own_rounds) and mean >= own_rounds[-1]["mean"]
            named = {self._sources[number].name: each for number, each in lost.items()}
            counts = shares(list(lost.values()), min(self._every, end - step) * self._size)
            self.rounds.append(
                {"stage": stage, "step": step, "degradation": named, "mean": mean, "is_over": is_over,
                 "sequences": dict(zip(map(str, lost), counts, strict=True))}
            )  # fmt: skip
            return not is_over
        return True

    def batch(self, step: int) -> list[int]:
        """Return the sequences of a step, by number: its part of the round's subset."""
        now = max((each for each in self.rounds if each["step"] <= step), key=lambda each: int(each["step"]))
        subset = list(self._subset(now["step"], {int(number): count for number, count in now["sequences"].items()}))
        place = step - int(now["step"])
        order = _order(len(subset), self._recovery.seed, -1 - int(now["step"]))
        return [subset[at] for at in order[place * self._size : (place + 1) * self._size]]

    def _subset(self, step: int, counts: dict[int, int]) -> Iterator[int]:
        for number, count in counts.items():
            available = len(self._sources[number].windows_NT)
            for place in range(count):
                order = _order(available, self._recovery.seed, step + place // available)
                yield self._source_starts[number] + order[place % available]

    def _stage(self, step: int) -> tuple[int, int, int]:
        """Return the stage of a step, its first step, and the one after its last."""
        for stage, (start, end) in enumerate(pairwise(self._ends)):
            if step < end:
                return stage, start, end
        raise AssertionError(step)


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Return a total divided in proportion to weights, none below 0; evenly where all are 0.

    The largest remainders are rounded up; ties go to the first.
    """
    weight_sum = sum(weights)
    exact = [total * each / weight_sum if weight_sum > 0 else total / len(weights) for each in weights]
    counts = [int(each) for each in exact]
    order = sorted(range(len(exact)), key=lambda number: counts[number] - exact[number])
    for number in order[: total - sum(counts)]:
        counts[number] += 1
    return counts


@lru_cache(maxsize=8)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order
