"""From a request to the walk that carries it out: a sweep where weights become zero, a removal where groups go."""

from collections.abc import Mapping
from typing import Any

import torch

from core.models.folder import ModelFolder
from core.pruning.methods import STRUCTURED
from core.pruning.plan import make_plan
from core.pruning.removal import Removal
from core.pruning.structured_plan import make_structured_plan
from core.pruning.sweep import Sweep


def walk_for(
    folder: ModelFolder,
    request: Mapping[str, Any],
    *,
    at_least: bool = False,
    device: torch.device | None = None,
    **setting: Any,
) -> Sweep | Removal:
    """`request` has method, sparsity, pattern and parameters; `setting` is what a `Walk` is given. `at_least`: the
    sparsity stands for a target, so that no fewer groups may go.

    Raises InvalidRequest kinds where the request does not fit the model.
    """
    if request["method"] in STRUCTURED:
        return Removal(folder, make_structured_plan(folder, at_least=at_least, device=device, **request), **setting)
    return Sweep(folder, make_plan(folder, device=device, **request), **setting)
