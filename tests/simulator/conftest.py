"""The simulated devices, for one test at a time."""

from collections.abc import Iterator

import pytest
import torch

from tests.engine.conftest import apart, one_thread, one_thread_for_shared_fixtures
from tests.simulator.backend import simulate
from tests.simulator.devices import SimulatedDevice

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
