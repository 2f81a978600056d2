"""Checks that a request fits a model; they are made before a job is queued, not hours into it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from core.engine.architectures.description import Description
from core.engine.cuts import Cut, Removal
from core.engine.options.axes import MethodParameters, SensitivityOptions
from core.engine.options.patterns import UNSTRUCTURED, Pattern, PatternFamily, parse_pattern, resolve_sparsity
from core.engine.removals.vocabulary import sparsity_of_tokens
from core.methods.method_info import MethodInfo, Variant
from core.methods.registry import METHODS, get_method, parse_parameters
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from secateur_wire.errors import (
    InvalidParameters,
    InvalidPattern,
    InvalidRequest,
    InvalidSparsity,
    UnsupportedArchitecture,
)
from secateur_wire.job_body import Layout

_NO_PATTERN: Final = UNSTRUCTURED.text
"""Pattern in the recipes of methods that prune nothing."""
_AMOUNT_TOLERANCE: Final = 1e-6
"""Tolerance between a sparsity and the one that parameters mean; a job's recipe has both."""


def task_mismatch(description: Description, method: MethodInfo) -> str | None:
    """Return why a method is not for models of this task; None where it is."""
    if description.task in method.task_families:
        return None
    return f"{method.id} is no method for {description.model_task.models}, which {description.architecture} is"


def resolve_request(description: Description, request: UnresolvedRequest) -> ResolvedRequest:
    """Check a request without a target against a model and fill in its defaults.

    Raises the kind of InvalidRequest that names the fault.
    """
    method, parameters = request.method, request.parameters
    info = get_method(method)
    mismatch = task_mismatch(description, info)
    if mismatch is not None:
        there = ", ".join(each.id for each in METHODS.values() if description.task in each.task_families)
        raise InvalidRequest(f"{mismatch}: use one of {there}", param="method")
    layout = _layout(description, request)
    _require_offered(description, method, "experts", "is not taken")
    if not info.prunes:
        return _without_target(description, request)
    parsed = _parse_offered_pattern(method, request.pattern)
    if parsed.is_n_m:
        parameters = _with_uniform_allocation(method, parsed.text, parameters)
    removal = info.variant(parsed.text).removal
    assert removal is not None
    if not _is_open(removal, request.sparsity):
        resolve_sparsity(parsed, request.sparsity)
    checked = parse_parameters(method, parameters, parsed.text)
    if removal.offer is not None:
        _require_offered(description, method, removal.offer, f"cannot lose {removal.offer}")
    if request.is_calibrated:
        checked = checked.with_refit()
    cut = Cut(description, checked, request.sparsity or 0.0, parsed, layout, request.at_least)
    resolved = _amount(removal, cut, request.sparsity)
    removal.check(replace(cut, sparsity=resolved or 0.0))
    return ResolvedRequest(method, parsed.text, resolved, checked, layout, request.at_least)


def _is_open(removal: Removal, sparsity: float | None) -> bool:
    """Return whether a request may leave out how much goes."""
    return removal.reads_texts and sparsity is None


def _amount(removal: Removal, cut: Cut, sparsity: float | None) -> float | None:
    """Return the share that goes: the sparsity, or what the options say; None where the texts decide.

    Raises InvalidSparsity where both say it, and differ.
    """
    by_options = sparsity_of_tokens(cut) if removal.reads_texts else None
    if _is_open(removal, sparsity):
        return by_options
    given = resolve_sparsity(cut.pattern, sparsity)
    if by_options is not None and abs(given - by_options) > _AMOUNT_TOLERANCE:
        raise InvalidSparsity(
            f"sparsity {given:g} and parameters both say how much goes, and the parameters mean {by_options:.6g}: "
            "leave one of them out",
            param="sparsity",
        )
    return given


def check_without_model(request: UnresolvedRequest) -> str:
    """Check a request as far as this is possible without the model, and return its pattern.

    Raises InvalidPattern, InvalidSparsity or InvalidParameters, as `resolve_request` would.
    """
    method = request.method
    if not get_method(method).prunes:
        _require_no_target(request)
        parse_parameters(method, request.parameters)
        return _NO_PATTERN
    parsed = _parse_offered_pattern(method, request.pattern)
    removal = get_method(method).variant(parsed.text).removal
    if request.target is None and not (removal and _is_open(removal, request.sparsity)):
        resolve_sparsity(parsed, request.sparsity)
    parse_parameters(method, request.parameters, parsed.text)
    return parsed.text


def _require_offered(description: Description, method: str, what: str, refusal: str) -> None:
    """Raise UnsupportedArchitecture, with the reason, if `what` is not offered for the architecture."""
    why = description.refusal(what)
    if why is not None:
        raise UnsupportedArchitecture(f"{method}: {description.architecture} {refusal}: {why}", param="model")


def _parse_offered_pattern(method: str, pattern: str | None) -> Pattern:
    """Return the requested or default pattern; raises InvalidPattern if the method does not offer it."""
    patterns = get_method(method).patterns
    parsed = parse_pattern(pattern or patterns[0])
    if parsed.family not in patterns:
        raise InvalidPattern(
            f"{method} does not offer pattern {parsed.text!r}: use {', '.join(patterns)}", param="pattern"
        )
    return parsed


def _layout(description: Description, request: UnresolvedRequest) -> Layout:
    """Return the layout of the result: the requested layout if layers get narrower, otherwise the model's own."""
    removal = get_method(request.method).variant(request.pattern).removal
    if removal is not None and removal.narrows:
        return request.layout or description.layout
    if request.layout == "per_layer" and description.layout == "uniform":
        why = f"output.layout: {request.method} leaves layers as wide as they are, so 'per_layer' would change nothing"
        why = description.model_task.inapplicable.get("output.layout", f"{why}: leave it out")
        raise InvalidRequest(why, param="output.layout")
    return description.layout


def _without_target(description: Description, request: UnresolvedRequest) -> ResolvedRequest:
    _require_no_target(request)
    checked = parse_parameters(request.method, request.parameters)
    if checked.sensitivity_options is not None:
        checked = _with_measured_defaults(description, checked, checked.sensitivity_options)
    return ResolvedRequest(request.method, _NO_PATTERN, None, checked, description.layout)


def _require_no_target(request: UnresolvedRequest) -> None:
    if request.sparsity is not None:
        raise InvalidSparsity(f"{request.method} prunes nothing: leave sparsity out", param="sparsity")
    if request.pattern not in (None, _NO_PATTERN):
        raise InvalidPattern(
            f"{request.method} prunes nothing and keeps the zeros of the model: leave pattern out", param="pattern"
        )


def calibrated_method(method: str, parameters: MethodParameters) -> MethodInfo:
    """Return the method that reads the calibration set: the job's method, or the one whose sensitivity it measures."""
    measured = parameters.sensitivity_options
    return get_method(method if measured is None else measured.method)


def calibrated_variant(method: str, pattern: str, parameters: MethodParameters) -> Variant:
    """Return the variant of `calibrated_method` for the job's pattern, or for the pattern of the measured method."""
    measured = parameters.sensitivity_options
    return calibrated_method(method, parameters).variant(pattern if measured is None else measured.pattern)


def _with_measured_defaults(
    description: Description, parameters: MethodParameters, options: SensitivityOptions
) -> MethodParameters:
    """Check that a sensitivity job's method can prune the model layer by layer; return the filled-in parameters.

    `options` are the sensitivity options in `parameters`. The result has the defaults of the measured method.
    """
    if description.has_experts:
        raise UnsupportedArchitecture(
            f"sensitivity: the experts of {description.architecture} cannot be measured yet", param="model"
        )
    own = _with_uniform_allocation(options.method, options.pattern, {"seed": parameters.seed} | options.parameters)
    for name, only in (("allocation", "uniform"), ("include_lm_head", False), ("compensation", None)):
        if own.get(name, only) != only:
            raise InvalidParameters(
                f"parameters.parameters.{name}: each layer is measured alone, at the same rates: leave {name} out",
                param=f"parameters.parameters.{name}",
            )
    if own.get("scope") == "model":
        raise InvalidParameters(
            "parameters.parameters.scope: 'model' ranks the weights of all layers together, here each is pruned alone: "
            "use 'tensor' or 'row'",
            param="parameters.parameters.scope",
        )
    try:
        info = get_method(options.method)
        measurable_patterns = _measurable_patterns(info)
        if not measurable_patterns:
            measurable_methods = [each.id for each in METHODS.values() if _measurable_patterns(each)]
            raise InvalidParameters(
                f"parameters.method: {options.method} cannot prune one layer alone, at a given rate, in one step: "
                f"use one of {', '.join(measurable_methods)}",
                param="parameters.method",
            )
        pattern = parse_pattern(options.pattern or info.patterns[0])
        if not info.variant(pattern.text).alone_measurable:
            raise InvalidParameters(
                f"parameters.pattern: {options.method} cannot prune one layer alone, at a given rate, in one step "
                f"with pattern {pattern.text!r}: use {', '.join(measurable_patterns)}",
                param="parameters.pattern",
            )
        rates = options.rates_of(pattern)
        measured = resolve_request(
            description, UnresolvedRequest(options.method, pattern.text, rates[-1], own)
        ).parameters
    except InvalidRequest as error:
        within = (error.param or "method").removeprefix("parameters.")
        error.param = f"parameters.{within if within in ('method', 'pattern', 'rates') else 'parameters'}"
        raise
    own = measured.model_dump(mode="json")
    return parameters.model_copy(update={"pattern": pattern.text, "rates": rates, "parameters": own})


def _measurable_patterns(info: MethodInfo) -> list[PatternFamily]:
    return [each for each in info.patterns if info.variant(each).alone_measurable]


def _with_uniform_allocation(method: str, pattern: str | None, parameters: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters with allocation 'uniform' instead of the method's default, unless one is requested."""
    if method not in METHODS:
        return dict(parameters)
    defaults = METHODS[method].variant(pattern).parameters.model_construct()
    return ({} if defaults.allocation_options is None else {"allocation": "uniform"}) | dict(parameters)
