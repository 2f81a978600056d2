"""Run of the stage that a message asks for; libraries that are slow to load are loaded for that stage alone."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from core.engine.models.accelerator import default_device
from core.pipeline.messages import DeviceSpec, Spec, TaskOutput
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.registry import run_module
from core.progress import Progress


def run_stage(spec: Spec, progress: Progress, peak_resident_bytes: Callable[[], int]) -> TaskOutput:
    """Do what a message asks for; raises WorkStopped where a stage was stopped, with what it had done saved."""
    run: Callable[[Any, StageContext], TaskOutput] = import_module(run_module(spec.task)).run
    device = torch.device("cpu")
    if isinstance(spec, DeviceSpec):
        device = torch.device(spec.device) if spec.device else default_device()
    return run(spec, StageContext(device, progress, peak_resident_bytes))
