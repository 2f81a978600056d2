"""A sweep with the service's own dispatcher and worker as processes, and the stand-in for a runner."""

import os
import signal
from typing import Any

import pytest

from core.settings import Settings
from tests.sweeps.conftest import Sweeps
from tests.worker.conftest import StartPart, eventually, impatient, start_part  # noqa: F401


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return impatient(settings)


def test_a_dispatcher_that_is_killed_is_replaced_and_the_sweep_ends_as_if_nothing_had_been(
    sweeps: Sweeps,
    grid_body: dict[str, Any],
    start_part: StartPart,  # noqa: F811
) -> None:
    grid = {"method": ["magnitude"], "sparsity": [0.3, 0.5, 0.7]}
    sweep_id = sweeps.submit(grid_body | {"grid": grid, "max_concurrent": 1})
    start_part("worker", stand_in={"ratio": 1.5})
    first = start_part("dispatcher", SECATEUR_DISPATCH_INTERVAL_SECONDS="0.2")
    eventually(lambda: sweeps.get(sweep_id).points.succeeded >= 1)
    os.killpg(first.pid, signal.SIGKILL)
    start_part("dispatcher", SECATEUR_DISPATCH_INTERVAL_SECONDS="0.2")
    eventually(lambda: sweeps.get(sweep_id).status != "running")
    sweep = sweeps.get(sweep_id)
    assert sweep.status == "succeeded" and sweep.points.succeeded == 3
    assert len(sweeps.jobs()) == 3 and all(job.labels["sweep"] == sweep_id for job in sweeps.jobs())
