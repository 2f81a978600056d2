"""The runner's part in a latency target: time shapes, and tell what each took."""

from collections.abc import Callable
from typing import Any

import torch

from core.engine.models.folder import open_model
from core.pipeline.stages.search import TimedShape, search_model
from worker.runner.messages import LogMessage, Message, MetricMessage, StageMessage
from worker.runner.specs import SearchSpec


def search_target(spec: SearchSpec, *, device: torch.device, send: Callable[[Message], None]) -> dict[str, Any]:
    """Search for the target: return `sparsity`, `spread` and the `steps`; each step is reported as it is timed.

    Raises LatencyTooNoisy, TargetUnreachable, OutOfMemory.
    """
    send(StageMessage(stage="open"))
    timed = 0

    def on_step(step: TimedShape) -> None:
        nonlocal timed
        send(MetricMessage(name="latency_ratio", step=timed, value=step.ratio))
        log(f"sparsity {step.sparsity:.4f}: {step.ratio:.3f} of the dense model's time")
        timed += 1

    def log(message: str) -> None:
        send(LogMessage(level="info", message=message))

    result = search_model(
        open_model(spec.model.path, own_artifact=spec.model.own_artifact),
        spec.recipe,
        sequence_length=spec.sequence_length,
        device=device,
        revision=spec.model.revision,
        work=spec.work,
        previous=spec.previous,
        on_step=on_step,
    )
    send(MetricMessage(name="target_sparsity", step=timed, value=result.sparsity))
    log(f"the target means sparsity {result.sparsity:.4f}{'' if timed else ', as an earlier attempt found'}")
    return result.model_dump(mode="json")
