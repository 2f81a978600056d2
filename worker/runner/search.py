"""The runner's part in a latency target: time shapes, and tell what each took."""

from typing import Any

import torch

from core.engine.models.folder import open_model
from core.pipeline.messages import SearchSpec
from core.pipeline.stages.search import TimedShape, search_model
from core.progress import Progress


def search_target(spec: SearchSpec, *, device: torch.device, progress: Progress) -> dict[str, Any]:
    """Search for the target: return `sparsity`, `spread` and the `steps`; each step is reported as it is timed.

    Raises LatencyTooNoisy, TargetUnreachable, OutOfMemory.
    """
    progress.stage("open")
    timed = 0

    def on_step(step: TimedShape) -> None:
        nonlocal timed
        progress.metric("latency_ratio", timed, step.ratio)
        progress.log(f"sparsity {step.sparsity:.4f}: {step.ratio:.3f} of the dense model's time")
        timed += 1

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
    progress.metric("target_sparsity", timed, result.sparsity)
    progress.log(f"the target means sparsity {result.sparsity:.4f}{'' if timed else ', as an earlier attempt found'}")
    return result.model_dump(mode="json")
