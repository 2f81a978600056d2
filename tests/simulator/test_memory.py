"""A device whose memory runs out: the job goes on with less at a time, or ends and leaves nothing to the next."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.models.accelerator import ran_out_of_memory
from core.engine.models.micro_batches import MicroBatches
from core.progress import Progress
from tests.simulator.devices import SimulatedDevice
from tests.simulator.jobs import model_folder, prune_language

_MESSAGE = r"Tried to allocate \d+ bytes.* of which \d+ bytes are free"
_WAYS = [("sparsegpt", "unstructured"), ("frontier", "structured")]
_SIZES = [{"from_block": 0, "calibration": 3, "evaluation": {"text": 2}}]
"""Sizes of micro-batches of the jobs here: all sequences in one."""
Fails = Callable[[int, int], bool]


class _Killed(BaseException):
    """The end of a process in the midst of its work."""


class _Boundaries(Progress):
    """The number of allocations when each block was saved."""

    def __init__(self, simulated: SimulatedDevice) -> None:
        self.at: list[int] = []
        self._simulated = simulated

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        self.at.append(self._simulated.counts.allocations)


def _counted(simulated: SimulatedDevice, source: Path, work: Path, *how: str) -> tuple[dict[str, Any], range]:
    """Return what a job leaves, and the numbers of the allocations of its second block."""
    boundaries = _Boundaries(simulated)
    with simulated.counting():
        result = prune_language(source, work, simulated.device, *how, progress=boundaries)
    return result, range(boundaries.at[0] + 1, boundaries.at[1] + 1)


def _failing(simulated: SimulatedDevice, fails: Fails, source: Path, work: Path, *how: str, **more: Any) -> Any:
    """Return what a job leaves on a device where such allocations fail, and that nothing of it stays there."""
    simulated.fails_allocation = fails
    try:
        with simulated.counting():
            return prune_language(source, work, simulated.device, *how, **more)
    finally:
        simulated.fails_allocation = None


def _once(at: int) -> Fails:
    return lambda number, nbytes: number == at


def _require_nothing_left(simulated: SimulatedDevice) -> None:
    # What a backward pass that failed had still to do, torch keeps until the next one.
    torch.ones(1, requires_grad=True).sum().backward()
    gc.collect()
    assert simulated.allocated <= simulated.left


def _require_close(result: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    """Require that results differ by the order of sums alone."""
    one, other = (each["perplexity"]["text"] for each in (result, undisturbed))
    assert one.dense == pytest.approx(other.dense, rel=1e-5) and one.pruned == pytest.approx(other.pruned, rel=1e-2)
    kept = [[getattr(row, "zeros", None) or row.after for row in each["rows"]] for each in (result, undisturbed)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(("way", "places"), list(zip(_WAYS, [(0.0, 0.4, 1.0), (0.6,)], strict=True)))
def test_wherever_in_a_block_memory_runs_out_the_job_goes_on_from_its_start_with_less_at_a_time(
    way: tuple[str, str], places: tuple[float, ...], simulated: SimulatedDevice, tmp_path: Path
) -> None:
    source = model_folder(tmp_path)
    undisturbed, block = _counted(simulated, source, tmp_path / "undisturbed", *way)
    assert not undisturbed["micro_batches"] and len(block) > 200
    results = []
    for place in places:
        at = block[round(place * (len(block) - 1))]
        results.append(_failing(simulated, _once(at), source, tmp_path / str(at), *way))
        _require_nothing_left(simulated)
    assert results[0]["micro_batches"] == [
        *_SIZES,
        {"from_block": 1, "calibration": 1, "evaluation": {"text": 1}},
    ]
    assert all(each == results[0] for each in results), "the block began anew"
    assert any(note.startswith("Memory ran out after block 1") for note in results[0]["notes"])
    _require_close(results[0], undisturbed)
    assert prune_language(source, tmp_path / "next", simulated.device, *way) == undisturbed


def test_a_resumed_job_repeats_the_sizes_of_the_one_that_was_killed(simulated: SimulatedDevice, tmp_path: Path) -> None:
    source = model_folder(tmp_path)
    how = ("sparsegpt", "2:4")
    _, block = _counted(simulated, source, tmp_path / "counted", *how)

    def once_and_killed_in_the_same_block(number: int, nbytes: int) -> bool:
        if number > block[-20] + len(block):
            raise _Killed
        return number == block[-20]

    whole = _failing(simulated, _once(block[-20]), source, tmp_path / "whole", *how, micro_batch=2)
    killed = tmp_path / "killed"
    with pytest.raises(_Killed):
        _failing(simulated, once_and_killed_in_the_same_block, source, killed, *how, micro_batch=2)
    resumed = prune_language(source, tmp_path / "resumed", simulated.device, *how, previous=[killed], micro_batch=2)
    assert resumed == whole and [each["calibration"] for each in whole["micro_batches"]] == [2, 1]
    assert [each["from_block"] for each in whole["micro_batches"]] == [0, 1]


def test_where_one_sequence_is_too_much_the_job_ends_with_what_was_asked_and_what_there_was(
    simulated: SimulatedDevice, tmp_path: Path
) -> None:
    source = model_folder(tmp_path)
    undisturbed, block = _counted(simulated, source, tmp_path / "undisturbed", "wanda")
    with pytest.raises(torch.OutOfMemoryError, match=_MESSAGE):
        _failing(simulated, lambda n, _: n > block[0] + 9, source, tmp_path / "work", "wanda")
    _require_nothing_left(simulated)
    assert prune_language(source, tmp_path / "next", simulated.device, "wanda") == undisturbed


@pytest.mark.parametrize("planned", [1, 5, 13])
def test_larger_micro_batches_are_made_of_smaller_ones(planned: int) -> None:
    sizes = MicroBatches(lambda length: planned)
    while not sizes.are_smallest(torch.zeros(9, 4), []):
        block = len(sizes.halved_at)
        sizes = MicroBatches(sizes.planned, (*sizes.halved_at, block))
        before, after = (sizes.size((9, 4), each) for each in (block - 1, block))
        assert after <= before / 2 and before % after == 0
    assert sizes.size((9, 4), -1) == min(planned, 9)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("can't start new thread"), True),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_errors_of_memory_are_known(error: Exception, is_one: bool) -> None:
    assert ran_out_of_memory(error) is is_one
