"""Plans of passes, and the passes: a request that fits its model, with the choices that depend on the device."""

from typing import Any

import torch

from core.device_kinds import device_kind
from core.engine.architectures.description import ModelDescription
from core.engine.cuts import Cut
from core.engine.models.accelerator import default_device
from core.engine.models.folder import ModelFolder
from core.engine.options.axes import SensitivityOptions
from core.engine.pruning.plan import LayerwisePlan, PruningPlan
from core.engine.removals.runs import LANGUAGE_RUNS, LanguagePass, PassRequest
from core.methods.engine import build_method
from core.methods.registry import parse_parameters
from core.methods.sensitivity import SensitivityPlan
from core.pipeline.recipes.request import ResolvedRequest
from secateur_wire.job_body import Quantization


def make_plan(
    folder: ModelFolder,
    request: ResolvedRequest,
    *,
    device: torch.device | None = None,
    quantization: Quantization | None = None,
) -> PruningPlan:
    """Make the plan of a pass from a request that was checked against the model; it may round the weights too.

    Each kind of removal has its own class of plan. The number of kept channels depends on the device. Raises
    InvalidSparsity if no multiple of channels that the device allows reaches the sparsity.
    """
    removal, device = request.pass_removal, device or default_device()
    run = LANGUAGE_RUNS[removal.id]
    method = build_method(request.method, request.parameters, run.protocols)
    cut = cut_for_device(device, request, folder.description)
    plan: PruningPlan = run.plan(folder, PassRequest(removal, cut, request.method, method, device, quantization))
    return plan


def cut_for_device(device: torch.device, request: ResolvedRequest, description: ModelDescription) -> Cut:
    """Return the cut for the request's removal, with the device's alignment where the request names none."""
    if request.leaves_alignment_open:
        return request.cut(description, round_to=device_kind(device.type).round_to)
    return request.cut(description)


def make_sensitivity_plan(
    folder: ModelFolder, options: SensitivityOptions, *, device: torch.device | None = None
) -> SensitivityPlan:
    """Make the plan of a measurement from checked options, whose defaults are filled in."""
    assert options.rates is not None and options.pattern is not None
    parameters = parse_parameters(options.method, options.parameters, options.pattern)
    layout = folder.description.layout
    request = ResolvedRequest(options.method, options.pattern, options.rates[-1], parameters, layout)
    pruning = make_plan(folder, request, device=device)
    assert isinstance(pruning, LayerwisePlan)
    return SensitivityPlan(pruning, tuple(options.rates), options.scope)


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
