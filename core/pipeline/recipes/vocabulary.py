"""Requests checked against a model that may lose tokens first, with the alignment that added files need.

In a job's body and recipe a sparsity is a share of the dense model's parameters. The pass that removes units sees the
model without the tokens, of which that is a larger share. A target counts the tokens that went.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from core.engine.architectures.description import CLASSIFICATION, Description, stored_as
from core.engine.exporters.registry import ADDED
from core.engine.quantization.settings import divisor_for
from core.engine.removals.vocabulary import reduced_description, tokens_left
from core.engine.removals.widths import rounding_cost
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Export, Output, Quantization, Recipe
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.sizes import resolve_target
from core.pipeline.recipes.validation import resolve_request
from secateur_wire.errors import InvalidRequest, InvalidSparsity, InvalidTarget
from secateur_wire.job_body import Vocabulary

PARAM = "vocabulary"


def request_with_vocabulary(
    description: Description, request: UnresolvedRequest, output: Output, vocabulary: Vocabulary | None
) -> ResolvedRequest:
    """Return the request checked against a model that loses tokens first; its sparsity is a share of the whole model.

    Where the texts decide how many tokens go, it is checked as if none did; the worker checks it again.

    Raises the kind of InvalidRequest that names the fault.
    """
    dense = stored_as(description, output.dtype)
    if vocabulary is None:
        return aligned_request(dense, request, output.exports, output.quantization)
    _require_possible(description, request)
    reduced = stored_as(without_tokens(description, vocabulary), output.dtype)
    resolved = _resolve(
        dense, reduced, request, partial(aligned_request, exports=output.exports, quantization=output.quantization)
    )
    if resolved.sparsity is None or not resolved.shrinks:
        return resolved
    return replace(resolved, sparsity=resolved.sparsity * reduced.parameters / dense.parameters)


def recipe_without_tokens(recipe: Recipe, dense: Description, reduced: Description) -> Recipe:
    """Return the recipe for the model that lost its tokens: its sparsity is a share of the reduced model.

    `dense` and `reduced` describe the model before and after. Raises the kind of InvalidRequest that names the fault.
    """
    dense, reduced = (stored_as(each, recipe.output.dtype) for each in (dense, reduced))
    if recipe.vocabulary is None:  # the method itself removes tokens, and nothing else
        return recipe.model_copy(update={"sparsity": 0.0})
    request = UnresolvedRequest(
        recipe.method,
        recipe.pattern,
        recipe.sparsity,
        recipe.parameters.model_dump(mode="json"),
        target=recipe.target,
        layout=recipe.output.layout,
        leaves_out_zeros=True,  # as far as the output needs it, that was checked when the job was submitted
    )
    if recipe.is_searched or not get_method(recipe.method).prunes:
        return recipe
    if recipe.target is not None:
        request = replace(request, sparsity=None)
    resolved = _resolve(dense, reduced, request, resolve_any)
    return recipe.model_copy(update={"sparsity": resolved.sparsity})


def without_tokens(description: Description, vocabulary: Vocabulary | None) -> Description:
    """Return the description of the model without the tokens that go for certain."""
    if vocabulary is None:
        return description
    tokens = tokens_left(description.language_model, vocabulary, PARAM)
    return description if tokens is None else reduced_description(description.language_model, tokens)


def conversations_refused(name: str, param: str) -> InvalidRequest:
    """Return the error for an evaluation on conversations where tokens go from the vocabulary."""
    return InvalidRequest(
        f"{param}: {name!r} has conversations, which cannot be compared in two vocabularies: evaluate on plain text, "
        "or leave vocabulary out",
        param=param,
    )


def _require_possible(description: Description, request: UnresolvedRequest) -> None:
    info = get_method(request.method)
    if description.task == CLASSIFICATION:
        raise InvalidRequest(
            f"vocabulary: {description.architecture} is an image classifier, and has no vocabulary: leave it out",
            param=PARAM,
        )
    if info.measures:
        raise InvalidRequest(f"vocabulary: {request.method} makes no model: leave it out", param=PARAM)
    removal = info.variant(request.pattern).removal
    if removal is not None and removal.reads_texts:
        raise InvalidRequest(
            f"vocabulary: method {request.method} itself removes tokens: give its options in parameters", param=PARAM
        )


def _resolve(
    dense: Description,
    reduced: Description,
    request: UnresolvedRequest,
    resolve: Callable[[Description, UnresolvedRequest], ResolvedRequest],
) -> ResolvedRequest:
    """Return the request resolved against the reduced model, with a sparsity that is a share of that model."""
    if request.sparsity is not None and get_method(request.method).variant(request.pattern).shrinks:
        request = replace(request, sparsity=request.sparsity * dense.parameters / reduced.parameters)
    if _is_met(reduced, request):
        resolved = resolve(reduced, replace(request, target=None, sparsity=0.0))
        return replace(resolved, at_least=True)
    return resolve(reduced, request)


def _is_met(reduced: Description, request: UnresolvedRequest) -> bool:
    """Return whether the model without the tokens is as small as the target allows."""
    target = request.target
    if target is None or reduced.parameters == 0:
        return False
    if target.parameters is not None:
        return reduced.parameters <= target.parameters
    return target.bytes is not None and reduced.bytes <= target.bytes


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
        inputs = {each.in_features for each in description.language_model.linears}
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
