"""Micro-batches of a pass over the blocks, and how such a pass goes on where memory does not suffice for them."""

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from core.engine.models.accelerator import ran_out_of_memory
from secateur_wire.base import JsonObject


@dataclass(frozen=True)
class MicroBatches:
    """Sizes of a pass's micro-batches: those of its plan, halved from some blocks on, where memory ran out.

    `planned` returns how many sequences of a length a forward has; `halved_at` are the blocks, once for each time.
    """

    planned: Callable[[int], int]
    halved_at: tuple[int, ...] = ()

    def size(self, shape: Sequence[int], block: int | None = None) -> int:
        """Return how many sequences of tokens [sequences, time] go through a block together; None: the last so far."""
        sequences, length = shape
        size = max(1, min(sequences, self.planned(length)))
        for at in self.halved_at:
            if block is None or at <= block:
                size = _halved(size)
        return size

    def are_smallest(self, calibration_NT: Tensor | None, evaluations: Iterable[Tensor]) -> bool:
        """Return True if all micro-batches of these tokens have one sequence."""
        return all(self.size(each.shape) == 1 for each in (calibration_NT, *evaluations) if each is not None)

    def history(self, calibration_NT: Tensor | None, evaluations: Mapping[str, Tensor]) -> list[JsonObject]:
        """Return the sequences in a micro-batch from block 0 on and from each where memory ran out, for the report.

        There is nothing to tell where it never did.
        """
        blocks = dict.fromkeys((0, *self.halved_at)) if self.halved_at else ()
        return [
            {
                "from_block": block,
                "calibration": None if calibration_NT is None else self.size(calibration_NT.shape, block),
                "evaluation": {name: self.size(each.shape, block) for name, each in evaluations.items()},
            }
            for block in blocks
        ]


def _halved(size: int) -> int:
    """Return the largest divisor that is at most the half, so that larger micro-batches are made of whole smaller ones.

    One stays one.
    """
    return next((each for each in range(size // 2, 0, -1) if size % each == 0), 1)


class ResumablePass(Protocol):
    """A pass that saves where it is, and can be told to go on from there by less at a time."""

    def halve_micro_batches(self, error: str) -> bool:
        """Save that the pass goes on from its newest record with smaller micro-batches; False where it cannot."""


Pass = TypeVar("Pass", bound=ResumablePass)
Result = TypeVar("Result")


def run_within_memory(make: Callable[[], Pass], run: Callable[[Pass], Result]) -> tuple[Pass, Result]:
    """Make a pass and run it; where memory runs out, go on from its newest record with smaller micro-batches.

    The pass that goes on is made anew, as a later attempt makes it: it has nothing of the one that failed but what that
    had saved. Returns the pass that came to its end, and its result. Raises the last error where nothing is saved yet,
    or micro-batches have one sequence.
    """
    while True:
        walk = make()
        try:
            return walk, run(walk)
        except Exception as error:
            if not (ran_out_of_memory(error) and walk.halve_micro_batches(str(error))):
                raise
        del walk
        gc.collect()  # modules and their hooks refer to each other
