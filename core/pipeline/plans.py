"""Plans of passes: a request checked against a model, with every choice it leaves open resolved."""

import torch

from core.engine.architectures.heterogeneous import Layout
from core.engine.architectures.unit_counts import layer_count
from core.engine.models.folder import ModelFolder
from core.engine.models.precision import forward_dtype, gradient_dtype
from core.engine.models.tensors import DTYPES
from core.engine.options.layer_selection import Selection, prunable_linears
from core.engine.options.patterns import parse_pattern
from core.engine.options.width import Width
from core.engine.options.width_counts import require_narrowing, require_structure
from core.engine.pruning.allocation.global_ranking import global_counts
from core.engine.pruning.layerwise.plan import Plan
from core.engine.pruning.units.plan import StructuredPlan
from core.methods.engine import build_method, build_structured_method
from core.methods.registry import parse_parameters
from core.methods.sensitivity.info import SensitivityParameters
from core.methods.sensitivity.plan import SensitivityPlan
from core.pipeline.recipes.validation import check_job


def make_plan(
    folder: ModelFolder,
    *,
    method: str,
    sparsity: float | None = None,
    pattern: str | None = None,
    parameters: dict[str, object] | None = None,
    device: torch.device | None = None,
) -> Plan:
    """Check a request against a model and resolve every choice it leaves open; raises InvalidRequest kinds."""
    description = folder.description
    resolved = check_job(description, method, pattern, sparsity, parameters or {})
    checked = parse_parameters(method, resolved.parameters)
    assert isinstance(checked, Selection), "structured methods have a plan of their own"
    linears = prunable_linears(description, checked)
    sparsity = resolved.sparsity or 0.0
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[description.dtype]
    allocation = getattr(checked, "allocation", "uniform")
    counts = None
    if getattr(checked, "scope", None) == "model":
        counts = global_counts(linears, lambda linear: folder.read(f"{linear.name}.weight"), sparsity)
    return Plan(
        method_id=method,
        pattern=parse_pattern(resolved.pattern),
        sparsity=sparsity,
        parameters=checked,
        linears=tuple(linears),
        sparsities=tuple(allocation) if isinstance(allocation, list) else (sparsity,) * description.layers,
        counts=counts,
        dtype=dtype,
        forward_dtype=forward_dtype(getattr(checked, "forward_dtype", "auto"), dtype, device),
        device=device,
        method=build_method(method, checked),
    )


def make_structured_plan(
    folder: ModelFolder,
    *,
    method: str,
    sparsity: float | None = None,
    pattern: str | None = None,
    parameters: dict[str, object] | None = None,
    layout: Layout | None = None,
    at_least: bool = False,
    device: torch.device | None = None,
) -> StructuredPlan:
    """Check a request against a model and resolve every choice it leaves open; raises InvalidRequest kinds.

    `layout` is that of the resulting model, None: the model's own. With `at_least` no less than `sparsity` is removed,
    else the nearest there is.
    """
    description = folder.description
    resolved = check_job(description, method, pattern, sparsity, parameters or {}, layout=layout, at_least=at_least)
    checked = parse_parameters(method, resolved.parameters)
    structure = require_structure(description)
    ratio = resolved.sparsity
    assert ratio is not None
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[description.dtype]
    narrowing = None
    if isinstance(checked, Width):
        narrowing = require_narrowing(
            description, checked, ratio, layout=resolved.layout, device=device.type, at_least=at_least
        )
    whole_layers = 0
    if narrowing is None:
        whole_layers = layer_count(structure, parameters=description.parameters, ratio=ratio, at_least=at_least)
    return StructuredPlan(
        method_id=method,
        sparsity=ratio,
        parameters=checked,
        layout=resolved.layout,
        at_least=at_least,
        narrowing=narrowing,
        removed_layers=whole_layers,
        dtype=dtype,
        forward_dtype=gradient_dtype(dtype, device),
        device=device,
        method=build_structured_method(method, checked),
    )


def make_sensitivity_plan(
    folder: ModelFolder, parameters: SensitivityParameters, *, device: torch.device | None = None
) -> SensitivityPlan:
    """Make a plan from checked parameters with defaults filled in; raises InvalidRequest kinds."""
    assert parameters.rates is not None
    pruning = make_plan(
        folder,
        method=parameters.method,
        sparsity=parameters.rates[-1],
        pattern=parameters.pattern,
        parameters=parameters.parameters,
        device=device,
    )
    return SensitivityPlan(pruning, tuple(parameters.rates), parameters.scope)
