"""Alignment of widths to the row blocks of added files, for requests that leave the alignment open."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from core.engine.architectures.describe import Description
from core.engine.exporters.registry import ADDED
from core.engine.quantization.settings import divisor_for
from core.engine.removals.widths import rounding_cost
from core.pipeline.recipes.parts import Export, Quantization
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.sizes import resolve_target
from core.pipeline.recipes.validation import resolve_request
from secateur_wire.errors import InvalidSparsity, InvalidTarget

_LARGEST_COST: Final = 0.02
"""Largest relative difference from the requested removal for which wider blocks than the narrowest are filled."""


def aligned_request(
    description: Description,
    unresolved: UnresolvedRequest,
    exports: Sequence[Export],
    quantization: Quantization | None = None,
) -> ResolvedRequest:
    """Return the request checked against a model; an unset `round_to` becomes the widest suitable block width.

    Blocks are those of added files, and the groups of quantised weights. `round_to` stays unset if no aligned widths
    are close enough to the request. Raises the kind of InvalidRequest that names the fault.
    """
    request = resolve_any(description, unresolved)
    if not request.leaves_alignment_open:
        return request
    widths = sorted({each for export in exports for each in _widths(export)}, reverse=True)
    if quantization is not None:
        inputs = (each.in_features for each in description.language_model.linears)
        divisor = divisor_for(quantization, inputs)
        widths += [] if divisor is None else [divisor]
    for width in widths:
        try:
            parameters = {**unresolved.parameters, "round_to": width}
            aligned = resolve_any(description, replace(unresolved, parameters=parameters))
        except (InvalidSparsity, InvalidTarget):
            continue
        if width == widths[-1] or _cost(description, aligned) < _LARGEST_COST:
            return aligned
    return request


def resolve_any(description: Description, request: UnresolvedRequest) -> ResolvedRequest:
    """Return the request checked against a model, with or without a target; raises as `resolve_request` does."""
    if request.target is None:
        return resolve_request(description, request)
    return resolve_target(description, request, request.target)


def _widths(export: Export) -> Sequence[int]:
    exporter = ADDED[export.format]
    return exporter.widths([each for each in export.types if each in exporter.types])


def _cost(description: Description, request: ResolvedRequest) -> float:
    """Return the relative difference from the requested removal; 1 if the sparsity is searched for."""
    if request.sparsity is None:
        return 1.0
    return rounding_cost(request.cut(description))
