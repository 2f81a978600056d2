"""Plans of passes: a request that fits its model, and what the device it is carried out on decides."""

import torch

from core.device_kinds import device_kind
from core.engine.architectures.description import ModelDescription
from core.engine.models.accelerator import default_device
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import forward_dtype, gradient_dtype
from core.engine.models.tensors import DTYPES
from core.engine.options.patterns import parse_pattern
from core.engine.options.sensitivity import SensitivityOptions
from core.engine.pruning.allocation.global_ranking import global_counts
from core.engine.pruning.blocks.plan import UnitRemovalPlan
from core.engine.pruning.layerwise.plan import LayerwisePlan
from core.engine.removals.cut import Cut
from core.engine.removals.weights.options import prunable_linears, selection_of
from core.methods.engine import build_method, build_unit_method
from core.methods.registry import parse_parameters
from core.methods.sensitivity.plan import SensitivityPlan
from core.pipeline.recipes.validation import ResolvedRequest


def make_plan(folder: ModelFolder, request: ResolvedRequest, *, device: torch.device | None = None) -> LayerwisePlan:
    """Make the plan of a pass that sets weights to zero, from a request that was checked against the model."""
    description, checked = folder.description, selection_of(request.parameters)
    linears = prunable_linears(description, checked)
    sparsity = request.sparsity or 0.0
    device = device or default_device()
    dtype = DTYPES[description.dtype]
    allocation = getattr(checked, "allocation", "uniform")
    requested = getattr(checked, "forward_dtype", "auto")
    if requested == "auto" and folder.family.discovered_by is not None:  # nobody has tried its code in another
        requested = description.dtype
    counts = None
    if getattr(checked, "scope", None) == "model":
        counts = global_counts(linears, lambda linear: folder.read(f"{linear.name}.weight"), sparsity)
    return LayerwisePlan(
        method_id=request.method,
        pattern=parse_pattern(request.pattern),
        sparsity=sparsity,
        parameters=checked,
        linears=tuple(linears),
        sparsities=tuple(allocation) if isinstance(allocation, list) else (sparsity,) * description.layers,
        counts=counts,
        dtype=dtype,
        forward_dtype=forward_dtype(requested, dtype, device),
        device=device,
        method=build_method(request.method, checked),
    )


def cut_on(device: torch.device, request: ResolvedRequest, description: ModelDescription) -> Cut:
    """Return what the removal of a request has to know, with the device's alignment where the request names none."""
    removal = request.removal
    if removal is None or not removal.narrows or removal.alignment(request.parameters) is not None:
        return request.cut(description)
    return request.cut(description, round_to=device_kind(device.type).round_to)


def make_unit_removal_plan(
    folder: ModelFolder, request: ResolvedRequest, *, device: torch.device | None = None
) -> UnitRemovalPlan:
    """Make the plan of a pass that removes groups, from a request that was checked against the model.

    How many channels are left depends on the device, so InvalidSparsity is raised where its multiples reach no such
    sparsity.
    """
    description, checked = folder.description, request.parameters
    assert request.sparsity is not None and request.removal is not None
    device = device or default_device()
    dtype = DTYPES[description.dtype]
    counts = request.removal.check(cut_on(device, request, description))
    return UnitRemovalPlan(
        method_id=request.method,
        sparsity=request.sparsity,
        parameters=checked,
        layout=request.layout,
        at_least=request.at_least,
        width_reduction=counts.width_reduction,
        removed_layers=counts.removed_layers,
        experts=counts.experts_left,
        dtype=dtype,
        forward_dtype=gradient_dtype(dtype, device),
        device=device,
        method=build_unit_method(request.method, checked),
    )


def make_sensitivity_plan(
    folder: ModelFolder, options: SensitivityOptions, *, device: torch.device | None = None
) -> SensitivityPlan:
    """Make the plan of a measurement from checked options, whose defaults are filled in."""
    assert options.rates is not None and options.pattern is not None
    parameters = parse_parameters(options.method, options.parameters, options.pattern)
    layout = folder.description.layout
    pruning = ResolvedRequest(options.method, options.pattern, options.rates[-1], parameters, layout)
    return SensitivityPlan(make_plan(folder, pruning, device=device), tuple(options.rates), options.scope)
