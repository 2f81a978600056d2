"""Environment of a task in its runner: the device, the progress that it reports, and the memory that it may take."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.engine.models.accelerator import backend_of, default_device
from core.engine.models.memory_limit import memory_left
from core.pipeline.messages import DeviceSpec, Spec
from core.pipeline.reports.report import PeakMemory
from core.progress import Progress


@dataclass(frozen=True)
class StageContext:
    """Environment of a stage; `peak_resident_bytes` reads the peak of its process so far."""

    device: torch.device
    progress: Progress
    peak_resident_bytes: Callable[[], int]

    def peak_memory(self) -> PeakMemory:
        """Return the peak resident bytes of this process and, if there is one, of the device."""
        peak = PeakMemory(resident=self.peak_resident_bytes())
        if (on_device := backend_of(self.device).peak_bytes()) is not None:
            peak.device = on_device
        return peak


def device_of(spec: Spec) -> torch.device:
    """Return the device on which a stage runs its model; the CPU for a stage without one."""
    if not isinstance(spec, DeviceSpec):
        return torch.device("cpu")
    return torch.device(spec.device) if spec.device else default_device()


def memory_room(spec: Spec) -> int:
    """Return the bytes of main memory that a stage may take: what is free, within what the worker may use."""
    most = spec.memory_bytes if isinstance(spec, DeviceSpec) else None
    free = memory_left()
    return free if most is None else min(free, most - backend_of(device_of(spec)).kind.process_bytes)
