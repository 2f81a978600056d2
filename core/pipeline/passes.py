"""Construction of the pass for a request, by its kind of removal."""

from typing import Any

import torch

from core.engine.models.folder import ModelFolder
from core.engine.removals.runs import LANGUAGE_RUNS, LanguagePass
from core.pipeline.plans import make_plan
from core.pipeline.recipes.request import ResolvedRequest
from secateur_wire.job_body import Quantization


def walk_for(
    folder: ModelFolder,
    request: ResolvedRequest,
    *,
    device: torch.device | None = None,
    quantization: Quantization | None = None,
    **setting: Any,
) -> LanguagePass[Any]:
    """Return the pass for a request that was checked against the model.

    With a `quantization`, which only a pass that keeps all shapes takes, it rounds the weights that it saves. `setting`
    are the keyword arguments of `BlockPass`. Raises InvalidSparsity if no multiple of channels that the device allows
    reaches the sparsity.
    """
    run = LANGUAGE_RUNS[request.pass_removal.id]
    return run.walk(folder, make_plan(folder, request, device=device, quantization=quantization), **setting)
