"""The simulated devices, for one test at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.engine.conftest import apart, one_thread, one_thread_for_shared_fixtures
from tests.simulator.backend import simulate
from tests.simulator.devices import SimulatedDevice
from tests.sources.conftest import write_wordy_model

__all__ = ["apart", "one_thread", "one_thread_for_shared_fixtures"]


@pytest.fixture
def devices() -> Iterator[tuple[SimulatedDevice, ...]]:
    """Two devices that compute the CPU's numbers."""
    with simulate() as both:
        yield both


@pytest.fixture
def simulated(devices: tuple[SimulatedDevice, ...]) -> SimulatedDevice:
    """The second device, while the first is the current one."""
    return devices[1]


@pytest.fixture
def device(simulated: SimulatedDevice) -> torch.device:
    return simulated.device


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with a tokenizer, whose words are w0 to w95."""
    return write_wordy_model(tmp_path_factory.mktemp("models") / "wordy")
