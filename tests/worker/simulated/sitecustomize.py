"""Simulated devices in every process whose PYTHONPATH begins here, as a driver gives a machine its own.

Python imports a module of this name by itself. All processes know the kind `sim`; those of the runner, and cells of the
bench, have the devices that CUDA_VISIBLE_DEVICES names, numbered from 0, and append to `CUDA_SIMULATED_LOG` which of
the machine's a process takes memory of, once.
"""

import os
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from core.device_kinds import CPU, CUDA, DEVICE_KINDS

_simulation: AbstractContextManager[object] | None = None
"""The devices end with it, and so with the process."""


def _give_devices() -> None:
    assert "torch" not in sys.modules, "what may be seen is said before torch is loaded"
    visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    log = Path(os.environ["CUDA_SIMULATED_LOG"])

    import tests.simulator.devices as devices
    from tests.simulator.backend import simulate

    devices.COUNT = len(visible)
    server, known = os.getpid(), set[int]()
    allocate = devices.SimulatedDevice.allocate

    def logged(device: devices.SimulatedDevice, nbytes: int) -> int:
        assert os.getpid() != server or not os.environ.get("FORKS"), "a process that is forked from touched a device"
        if os.getpid() not in known:
            known.add(os.getpid())
            with open(log, "a") as file:
                file.write(f"{os.getppid()} {visible[device.index]}\n")
        return allocate(device, nbytes)

    devices.SimulatedDevice.allocate = logged
    global _simulation
    _simulation = simulate()
    _simulation.__enter__()


DEVICE_KINDS["sim"] = replace(
    CPU, name="sim", operations_per_second=CUDA.operations_per_second, context_bytes=CUDA.context_bytes
)
if any(word.startswith("worker.runner") for word in sys.orig_argv):
    os.environ["FORKS"] = "1" if any("forking_process" in word for word in sys.orig_argv) else ""
    _give_devices()
