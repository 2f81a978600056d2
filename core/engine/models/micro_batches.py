"""Micro-batches that get smaller where memory runs out: of passes over the blocks, of training, of measurements."""

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from core.engine.models.accelerator import DeviceBackend, ran_out_of_memory
from secateur_wire.base import JsonObject


@dataclass(frozen=True)
class MicroBatches:
    """Sizes of a pass's micro-batches: the plan's size, halved from each block on at which memory ran out.

    `planned` returns the number of sequences of a length per forward. `halved_at` are the blocks, once for each
    halving.
    """

    planned: Callable[[int], int]
    halved_at: tuple[int, ...] = ()

    def size(self, shape: Sequence[int], block: int | None = None) -> int:
        """Return the number of sequences per forward of a block, for tokens [sequences, time]; None: the last block."""
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
        """Return the sequences per micro-batch from block 0 on, and from each halving on, for the report.

        Empty where memory never ran out.
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
    """Return the largest divisor that is at most half, so that a larger micro-batch consists of whole smaller ones.

    One stays one.
    """
    return next((each for each in range(size // 2, 0, -1) if size % each == 0), 1)


class ResumablePass(Protocol):
    """Pass that saves its position, and can resume from there with smaller micro-batches."""

    def halve_micro_batches(self, error: str) -> bool:
        """Save that the pass resumes from its newest record with smaller micro-batches; False if it cannot."""


Pass = TypeVar("Pass", bound=ResumablePass)
Result = TypeVar("Result")


def run_within_memory(make: Callable[[], Pass], run: Callable[[Pass], Result]) -> tuple[Pass, Result]:
    """Run a new pass; where memory runs out, resume from its newest record with smaller micro-batches.

    The resuming pass is a new one, as in a later attempt: it keeps only the saved state of the failed one. Returns the
    pass that ended, and its result. Raises the last error where nothing is saved yet, or micro-batches have one
    sequence.
    """
    while True:
        walk = make()
        try:
            return walk, run(walk)
        except Exception as error:
            if not (ran_out_of_memory(error) and walk.halve_micro_batches(str(error))):
                raise
            if "could not create a primitive" in str(error):  # oneDNN compiles nothing more in this thread
                torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # its setter is not typed
        del walk
        gc.collect()  # modules and their hooks refer to each other
        DeviceBackend(torch.device("cpu")).release_memory()  # what the allocator keeps counts as memory of the process


@dataclass
class AtOnce:
    """Number of sequences that go through a model together; halved, down to `least`, where memory runs out."""

    size: int
    least: int = 1
    log: Callable[[str], None] = lambda message: None

    def halve_micro_batches(self, error: str) -> bool:
        """Halve the number from now on, and log it with the memory's `error`; False where it is the least."""
        if self.size <= self.least:
            return False
        self.size = max(self.least, self.size // 2)
        self.log(f"Memory ran out: from here on at most {self.size} go through the model together. {error}")
        return True

    def run(self, work: Callable[[int], Result]) -> Result:
        """Return what `work` does with so many at once; where memory runs out it begins again with fewer."""
        return run_within_memory(lambda: self, lambda at_once: work(at_once.size))[1]
