"""A device without room: the job ends with what was asked and what there was, and nothing of it is left."""

import gc
from pathlib import Path

import pytest
import torch

from core.errors import OutOfMemory
from tests.simulator.devices import SimulatedDevice
from tests.simulator.jobs import model_folder, prune_language

_MESSAGE = r"Tried to allocate \d+ bytes.* of which \d+ bytes are free"


def _allocations(simulated: SimulatedDevice, source: Path, work: Path, *how: str) -> int:
    with simulated.counting() as counts:
        prune_language(source, work, simulated.device, *how)
    return counts.allocations


def _ends_and_leaves_nothing(simulated: SimulatedDevice, source: Path, work: Path, at: int, *how: str) -> None:
    with simulated.counting():
        simulated.fails_allocation = lambda number, nbytes: number == at
        with pytest.raises((torch.OutOfMemoryError, OutOfMemory), match=_MESSAGE):
            prune_language(source, work, simulated.device, *how)
        simulated.fails_allocation = None
    gc.collect()
    assert simulated.allocated == 0, at


@pytest.mark.parametrize(("method", "pattern"), [("sparsegpt", "unstructured"), ("llm-pruner", "structured")])
def test_memory_that_runs_out_anywhere_ends_the_job_and_leaves_nothing_to_the_next(
    method: str, pattern: str, simulated: SimulatedDevice, tmp_path: Path
) -> None:
    source = model_folder(tmp_path)
    every = _allocations(simulated, source, tmp_path / "counted", method, pattern)
    places = torch.linspace(1, every, 4).long().tolist()
    for at in places:
        _ends_and_leaves_nothing(simulated, source, tmp_path / str(at), at, method, pattern)
    before = prune_language(source, tmp_path / "before", torch.device("cpu"), method, pattern)
    assert prune_language(source, tmp_path / "after", simulated.device, method, pattern) == before


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("method", "pattern"), [("sparsegpt", "unstructured"), ("llm-pruner", "structured")])
def test_at_two_hundred_places_of_a_job(method: str, pattern: str, simulated: SimulatedDevice, tmp_path: Path) -> None:
    source = model_folder(tmp_path)
    every = _allocations(simulated, source, tmp_path / "counted", method, pattern)
    for at in sorted(set(torch.randperm(every, generator=torch.Generator().manual_seed(0))[:200].tolist())):
        _ends_and_leaves_nothing(simulated, source, tmp_path / str(at), at + 1, method, pattern)


def test_a_fault_of_the_device_ends_the_job_when_it_next_waits(simulated: SimulatedDevice, tmp_path: Path) -> None:
    source = model_folder(tmp_path)
    simulated.fault_after(500)
    with pytest.raises(torch.AcceleratorError, match="device-side assert triggered on device 1"):
        prune_language(source, tmp_path / "work", simulated.device, "wanda")
