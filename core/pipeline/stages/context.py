"""Circumstances of a stage: the device it runs on, who watches it, and the memory of its process."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.engine.models.accelerator import backend_of
from core.pipeline.reports.report import PeakMemory
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
