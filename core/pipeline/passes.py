"""Construction of the pass that carries a request out: one sets weights to zero, the other removes units."""

from typing import Any

import torch

from core.engine.models.folder import ModelFolder
from core.engine.options.patterns import STRUCTURED
from core.engine.pruning.blocks.language_pass import UnitRemovalPass
from core.engine.pruning.layerwise.language_pass import LayerwisePass
from core.pipeline.plans import make_plan, make_unit_removal_plan
from core.pipeline.recipes.validation import ResolvedRequest


def walk_for(
    folder: ModelFolder, request: ResolvedRequest, *, device: torch.device | None = None, **setting: Any
) -> LayerwisePass | UnitRemovalPass:
    """Return the pass for a request that was checked against the model.

    `setting` are the keyword arguments of `Walk`. Raises InvalidSparsity where the device's multiples of channels do
    not reach the sparsity.
    """
    if request.pattern == STRUCTURED.text:
        return UnitRemovalPass(folder, make_unit_removal_plan(folder, request, device=device), **setting)
    return LayerwisePass(folder, make_plan(folder, request, device=device), **setting)
