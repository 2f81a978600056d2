"""Run of the stage that a message asks for, and its circumstances; libraries are loaded for that stage alone."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from core.engine.models.accelerator import backend_of, default_device
from core.pipeline.messages import DeviceSpec, Spec, TaskOutput
from core.pipeline.reports.report import PeakMemory
from core.pipeline.stages.registry import run_module
from core.progress import Progress


@dataclass(frozen=True)
class StageContext:
    """Circumstances of a stage. `peak_resident_bytes` reads those of its process, up to now."""

    device: torch.device
    progress: Progress
    peak_resident_bytes: Callable[[], int]

    def peak_memory(self) -> PeakMemory:
        """Return the peak resident bytes of this process, and of the device where there is one."""
        peak = PeakMemory(resident=self.peak_resident_bytes())
        if (on_device := backend_of(self.device).peak_bytes()) is not None:
            peak.device = on_device
        return peak


def run_stage(spec: Spec, progress: Progress, peak_resident_bytes: Callable[[], int]) -> TaskOutput:
    """Do what a message asks for; raises WorkStopped where a stage was stopped, with what it had done saved."""
    run: Callable[[Any, StageContext], TaskOutput] = import_module(run_module(spec.task)).run
    device = torch.device("cpu")
    if isinstance(spec, DeviceSpec):
        device = torch.device(spec.device) if spec.device else default_device()
    return run(spec, StageContext(device, progress, peak_resident_bytes))
