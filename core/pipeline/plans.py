"""Plans of passes: a request that fits its model, and what the device it is carried out on decides."""

import torch

from core.engine.architectures.layer_count import layer_count
from core.engine.models.accelerator import default_device
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import forward_dtype, gradient_dtype
from core.engine.models.tensors import DTYPES
from core.engine.options.experts import ExpertOptions, experts_left
from core.engine.options.layer_selection import LayerSelection, prunable_linears
from core.engine.options.patterns import parse_pattern
from core.engine.options.sensitivity import SensitivityOptions
from core.engine.options.width import WidthOptions
from core.engine.options.width_counts import plan_width_reduction, require_structure
from core.engine.pruning.allocation.global_ranking import global_counts
from core.engine.pruning.layerwise.plan import LayerwisePlan
from core.engine.pruning.units.plan import UnitRemovalPlan
from core.methods.engine import build_method, build_unit_method
from core.methods.registry import parse_parameters
from core.methods.sensitivity.plan import SensitivityPlan
from core.pipeline.recipes.validation import ResolvedRequest


def make_plan(folder: ModelFolder, request: ResolvedRequest, *, device: torch.device | None = None) -> LayerwisePlan:
    """Make the plan of a pass that sets weights to zero, from a request that was checked against the model."""
    description, checked = folder.description, request.parameters
    assert isinstance(checked, LayerSelection), "structured methods have a plan of their own"
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


def make_unit_removal_plan(
    folder: ModelFolder, request: ResolvedRequest, *, device: torch.device | None = None
) -> UnitRemovalPlan:
    """Make the plan of a pass that removes groups, from a request that was checked against the model.

    How many channels are left depends on the device, so InvalidSparsity is raised where its multiples reach no such
    sparsity.
    """
    description, checked, ratio = folder.description, request.parameters, request.sparsity
    structure = require_structure(description)
    assert ratio is not None
    device = device or default_device()
    dtype = DTYPES[description.dtype]
    width_reduction = None
    if isinstance(checked, WidthOptions):
        width_reduction = plan_width_reduction(
            description,
            checked,
            ratio,
            layout=request.layout,
            device=device.type,
            at_least=request.at_least,
            is_timed=request.is_timed,
        )
    removed_layers, experts = 0, None
    if isinstance(checked, ExpertOptions):
        experts = experts_left(description, structure, ratio, at_least=request.at_least)
    elif width_reduction is None:
        removed_layers = layer_count(
            structure, parameters=description.parameters, ratio=ratio, at_least=request.at_least
        )
    return UnitRemovalPlan(
        method_id=request.method,
        sparsity=ratio,
        parameters=checked,
        layout=request.layout,
        at_least=request.at_least,
        width_reduction=width_reduction,
        removed_layers=removed_layers,
        experts=experts,
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
