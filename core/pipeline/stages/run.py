"""Entry point that runs the task named in a message; it loads only the libraries of that task."""

from collections.abc import Callable

from core.pipeline.messages import Spec, TaskOutput
from core.pipeline.stages.context import StageContext, device_of
from core.pipeline.stages.registry import run_function
from core.progress import Progress


def run_stage(spec: Spec, progress: Progress, peak_resident_bytes: Callable[[], int]) -> TaskOutput:
    """Run the task that a message asks for; raises WorkStopped if it was stopped, after its progress is saved."""
    output: TaskOutput = run_function(type(spec))(spec, StageContext(device_of(spec), progress, peak_resident_bytes))
    return output
