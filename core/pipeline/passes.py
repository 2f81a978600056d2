"""Construction of the pass that carries a request out: a sweep sets weights to zero, a removal takes out groups."""

from collections.abc import Mapping
from typing import Any

import torch

from core.engine.architectures.heterogeneous import Layout
from core.engine.models.folder import ModelFolder
from core.engine.pruning.layerwise.language_pass import Sweep
from core.engine.pruning.units.language_pass import Removal
from core.methods.registry import get_method
from core.pipeline.plans import make_plan, make_structured_plan


def walk_for(
    folder: ModelFolder,
    request: Mapping[str, Any],
    *,
    layout: Layout | None = None,
    at_least: bool = False,
    device: torch.device | None = None,
    **setting: Any,
) -> Sweep | Removal:
    """Return the pass for a request, which has method, sparsity, pattern and parameters.

    `layout` is that of the resulting model, None: the model's own. With `at_least` the sparsity stands for a target, so
    that no fewer groups may be removed. `setting` are the keyword arguments of `Walk`. Raises InvalidRequest kinds
    where the request does not fit the model.
    """
    if get_method(request["method"]).removes in ("heads_and_channels", "layers"):
        plan = make_structured_plan(folder, layout=layout, at_least=at_least, device=device, **request)
        return Removal(folder, plan, **setting)
    return Sweep(folder, make_plan(folder, device=device, **request), **setting)
