"""Entry point that runs the stage named in a message; it loads only the libraries of that stage."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from core.engine.models.accelerator import backend_of, default_device
from core.engine.models.memory_limit import memory_left
from core.pipeline.messages import DeviceSpec, Spec, TaskOutput
from core.pipeline.reports.report import PeakMemory
from core.pipeline.stages.registry import run_module
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


def run_stage(spec: Spec, progress: Progress, peak_resident_bytes: Callable[[], int]) -> TaskOutput:
    """Run the stage that a message asks for; raises WorkStopped if it was stopped, after its progress is saved."""
    run: Callable[[Any, StageContext], TaskOutput] = import_module(run_module(spec.task)).run
    return run(spec, StageContext(device_of(spec), progress, peak_resident_bytes))


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
