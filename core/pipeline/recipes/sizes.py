"""Targets: the requested size or speed of an artifact, and the sparsity that reaches it for a model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from core.engine.architectures.description import Description
from core.engine.cuts import Cut, Figure
from core.engine.exporters.registry import ADDED, OFFERED
from core.engine.latency.registry import engine_info
from core.engine.options.patterns import STRUCTURED, parse_pattern
from core.methods.registry import METHODS, get_method, parse_parameters
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest, is_chosen_by_cost
from core.pipeline.recipes.validation import resolve_request
from secateur_wire.errors import InvalidRequest, InvalidSparsity, InvalidTarget
from secateur_wire.job_body import Target

TRANSFORMERS: Final = "transformers"
"""Engine of a target that names none."""
_ENGINE: Final = "target.engine"
_SPARSITY_TOLERANCE = 1e-9
"""Tolerance between a requested sparsity and the sparsity that follows from the target; a job's recipe has both."""


def no_speed_up(method: str) -> str:
    """Return the reason why a job whose method only zeroes weights cannot reach a latency."""
    info = get_method(method)
    if any(info.variant(each).shrinks for each in info.patterns):
        return (
            f"no speed-up is expected of zeros: use pattern {STRUCTURED.text!r}, with which {method} removes heads, "
            "channels or layers"
        )
    return (
        f"no speed-up is expected of zeros, and {method} makes nothing else: use a method with pattern 'structured', "
        "which removes heads, channels or layers"
    )


def resolve_target(description: Description, request: UnresolvedRequest, target: Target) -> ResolvedRequest:
    """Check a request with its target as `resolve_request` does; its sparsity is the least that meets the target.

    The sparsity is None if a worker has to search for it. A request may give the sparsity too if it is the same one, as
    in the recipe of an earlier job. Raises the kind of InvalidRequest that names the fault. If the target is out of
    reach, this is InvalidTarget with the nearest possible figure.
    """
    method = request.method
    info = get_method(method)
    refusal = description.model_task.inapplicable.get("target")
    if refusal is not None:
        raise InvalidTarget(refusal, param="target")
    if not info.prunes:
        raise InvalidTarget(f"{method} prunes nothing: leave target out", param="target")
    parsed = parse_pattern(request.pattern or info.patterns[0])
    checked = parse_parameters(method, request.parameters, parsed.text)
    allocation = checked.allocation_options
    if parsed.is_n_m or (allocation is not None and allocation.is_listed):
        fixing = f"pattern {parsed.text!r} fixes" if parsed.is_n_m else "the list in parameters.allocation fixes"
        raise InvalidTarget(
            f"target: {fixing} how much goes: leave target out, or use pattern 'unstructured' and allocation 'uniform'",
            param="target",
        )
    param = f"target.{target.kind}"
    removal = info.variant(parsed.text).removal
    assert removal is not None
    if removal.zeroes and target.is_time:
        raise InvalidTarget(
            f"{param}: {no_speed_up(method)}",
            param=param,
        )
    if removal.latency_refusal is not None and target.is_time:
        raise InvalidTarget(f"{param}: {removal.latency_refusal}", param=param)
    if removal.zeroes and target.bytes is not None and not request.leaves_out_zeros:
        forms = " or ".join(repr(form) for form, each in OFFERED.items() if each.leaves_out_zeros)
        raise InvalidTarget(
            f"{param}: zeros take as many bytes as any other weight in a dense file: use output.format {forms}, or a "
            "method with pattern 'structured'",
            param=param,
        )
    layout = request.layout or description.layout
    cut = Cut(description, checked, 0.0, parsed, layout, at_least=True)
    if target.is_time or target.memory_bytes is not None:
        if is_chosen_by_cost(target, checked, layout):
            if target.is_time:
                timed_type(description, target.engine, request.exports)
        elif layout == "per_layer" or target.engine is not None or not target.is_time:
            raise InvalidTarget(_only_by_cost(target, param), param=param if target.engine is None else _ENGINE)
        if request.sparsity is not None:
            raise InvalidSparsity(
                "sparsity and target are both given: leave sparsity out, the worker searches for it", param="sparsity"
            )
        most = removal.reachable(cut)[-1]
        resolved = resolve_request(description, replace(request, sparsity=most, layout=layout))
        return replace(resolved, sparsity=None)
    dense = description.parameters if target.parameters is not None else description.bytes
    if target.limit > dense:
        raise InvalidTarget(f"{param} {target.limit:,}: the dense model has only {dense:,}, so use less", param=param)
    kind: Figure = "parameters" if target.parameters is not None else "bytes"
    scale = removal.scale(cut, kind)
    meant = scale.sparsity_of(target.limit) if target.limit < dense else 0.0
    if request.sparsity is not None and abs(request.sparsity - meant) > _SPARSITY_TOLERANCE:
        raise InvalidSparsity(
            f"sparsity {request.sparsity} and target are both given, and {target.kind} {target.limit:,} means sparsity "
            f"{meant:.6g}: leave one of them out",
            param="sparsity",
        )
    try:
        return resolve_request(description, replace(request, sparsity=meant, layout=layout, at_least=True))
    except InvalidSparsity:
        nearest = removal.nearest(replace(cut, sparsity=meant), kind)
        raise InvalidTarget(
            f"{param} {target.limit:,} cannot be reached by {method} on this model: the nearest is {nearest:,}",
            param=param,
        ) from None


def timed_type(description: Description, engine: str | None, exports: Mapping[str, Sequence[str]]) -> str:
    """Return the type of files in which an engine's times count: of the job's `exports`, or else the model's dtype.

    `engine` is None for transformers. Raises InvalidTarget where the engine cannot run the model, or lacks its files.
    """
    try:
        info = engine_info(engine or TRANSFORMERS)
    except InvalidRequest as error:
        raise InvalidTarget(f"target.{error.message}", param=_ENGINE) from None
    if info.form is None:
        kind = description.dtype
    elif info.form in exports:
        kind = exports[info.form][0]
        most = ADDED[info.form].most_timed_parameters
        if description.parameters > most:
            raise InvalidTarget(
                f"{_ENGINE}: {info.title} times models of at most {most / 1e9:g} billion parameters here: leave it out",
                param=_ENGINE,
            )
    else:
        raise InvalidTarget(
            f"{_ENGINE}: the artifact is timed in {info.title}, which needs its files: add "
            f'{{"format": "{info.form}", "types": ["{next(iter(info.types))}"]}} to output.exports',
            param=_ENGINE,
        )
    try:
        info.check(description.language_model, kind)
    except InvalidRequest as error:
        raise InvalidTarget(f"{_ENGINE}: {error.message}", param=_ENGINE) from None
    return kind


def _only_by_cost(target: Target, param: str) -> str:
    """Return why a target is refused that only methods which know the worth of parts can reach."""
    structured = [each.id for each in METHODS.values() if STRUCTURED.text in each.patterns]
    able = [each for each in structured if parse_parameters(each, {}, STRUCTURED.text).chooses_by_cost]
    methods = f"{' and '.join(able)} with pattern {STRUCTURED.text!r} can"
    if target.engine is not None:
        return f"{_ENGINE}: only {methods} choose shapes by their times in an engine: leave it out"
    if target.memory_bytes is not None:
        return f"{param}: only {methods} choose shapes by their memory: use target.bytes"
    return (
        f"{param} cannot be used with layers of different shapes, because the shapes are not known in advance: use "
        f"output.layout 'uniform'. Only {methods} choose a shape for each layer"
    )


def expected_size(
    description: Description, request: ResolvedRequest, output: str, *, sparsity: float | None = None
) -> tuple[int, int]:
    """Return the expected number of nonzero parameters of an artifact, and the bytes of its tensors.

    `output` is the format; `sparsity` replaces the request's own.
    """
    removal, cut = request.removal, request.cut(description, sparsity=sparsity)
    assert removal is not None
    left = removal.scale(cut, "parameters").figure_of(cut.sparsity)
    if removal.zeroes and not OFFERED[output].leaves_out_zeros:
        return left, description.bytes
    return left, removal.scale(cut, "bytes").figure_of(cut.sparsity)
