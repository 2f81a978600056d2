"""Checks that a request fits a model, made before a job is queued and not hours into it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from core.device_kinds import CPU
from core.engine.architectures.describe import Description
from core.engine.architectures.heterogeneous import Layout
from core.engine.cuts.cut import Cut
from core.engine.cuts.removal import Removal
from core.engine.options.base import MethodParameters
from core.engine.options.patterns import UNSTRUCTURED, Pattern, PatternFamily, parse_pattern, resolve_sparsity
from core.engine.options.sensitivity import SensitivityOptions
from core.errors import InvalidParameters, InvalidPattern, InvalidRequest, InvalidSparsity, UnsupportedArchitecture
from core.methods.method_info import MethodInfo, Variant
from core.methods.registry import METHODS, get_method, parse_parameters

_NOTHING_GOES: Final = UNSTRUCTURED.text
"""Pattern in recipes of methods that prune nothing."""


@dataclass(frozen=True)
class ResolvedRequest:
    """Request that fits its model, with its defaults filled in.

    `layout` is that of the model that comes out. With `at_least` the sparsity stands for a target, and where groups are
    removed no less of it goes; else the nearest there is. `is_timed`: the sparsity is, or is to be, that of a shape
    that was timed.
    """

    method: str
    pattern: str
    sparsity: float | None
    parameters: MethodParameters
    layout: Layout = "uniform"
    at_least: bool = False
    is_timed: bool = False

    @property
    def variant(self) -> Variant:
        return get_method(self.method).variant(self.pattern)

    @property
    def removal(self) -> Removal | None:
        """Return the kind of removal, None where nothing is pruned."""
        return self.variant.removal

    @property
    def shrinks(self) -> bool:
        """Return whether parts of the model go, so that it gets smaller."""
        return self.variant.shrinks

    def cut(self, description: Description, *, round_to: int = CPU.round_to, sparsity: float | None = None) -> Cut:
        """Return what its removal has to know; `sparsity` takes the place of its own."""
        return Cut(
            description,
            self.parameters,
            (self.sparsity or 0.0) if sparsity is None else sparsity,
            parse_pattern(self.pattern),
            self.layout,
            self.at_least,
            self.is_timed,
            round_to,
        )


def resolve_request(
    description: Description,
    method: str,
    pattern: str | None,
    sparsity: float | None,
    parameters: Mapping[str, object],
    *,
    layout: Layout | None = None,
    at_least: bool = False,
    is_calibrated: bool = False,
) -> ResolvedRequest:
    """Check a request against a model and fill in its defaults; raises the InvalidRequest kind that names the fault.

    `layout` is the one asked for, None: the model's own. `is_calibrated`: the job has calibration text, to which what
    is left of a cut is refitted unless the parameters say otherwise.
    """
    info = get_method(method)
    if description.task not in info.task_families:
        models = description.model_task.models
        there = ", ".join(each.id for each in METHODS.values() if description.task in each.task_families)
        raise InvalidRequest(
            f"{method} is no method for {models}, which {description.architecture} is: use one of {there}",
            param="method",
        )
    layout = _layout(description, method, pattern, layout)
    _require_offered(description, method, "experts", "is not taken")
    if not info.prunes:
        return _without_target(description, method, pattern, sparsity, parameters)
    parsed = _offered(method, pattern)
    resolved = resolve_sparsity(parsed, sparsity)
    if parsed.is_n_m:
        parameters = _at_one_rate(method, parsed.text, parameters)
    checked = parse_parameters(method, parameters, parsed.text)
    removal = info.variant(parsed.text).removal
    assert removal is not None
    if removal.offer is not None:
        _require_offered(description, method, removal.offer, f"cannot lose {removal.offer}")
    if is_calibrated:
        checked = checked.with_refit()
    removal.check(Cut(description, checked, resolved, parsed, layout, at_least))
    return ResolvedRequest(method, parsed.text, resolved, checked, layout, at_least)


def check_without_model(
    method: str,
    pattern: str | None,
    sparsity: float | None,
    parameters: Mapping[str, object],
    *,
    has_target: bool,
) -> str:
    """Check what can be told of a request whose model is not known yet, and return its pattern.

    Raises InvalidPattern, InvalidSparsity or InvalidParameters, as `resolve_request` will.
    """
    if not get_method(method).prunes:
        _require_no_target(method, pattern, sparsity)
        parse_parameters(method, parameters)
        return _NOTHING_GOES
    parsed = _offered(method, pattern)
    if not has_target:
        resolve_sparsity(parsed, sparsity)
    parse_parameters(method, parameters, parsed.text)
    return parsed.text


def _require_offered(description: Description, method: str, what: str, refusal: str) -> None:
    """Raise UnsupportedArchitecture, with the reason, where the architecture cannot be offered something."""
    why = description.refusal(what)
    if why is not None:
        raise UnsupportedArchitecture(f"{method}: {description.architecture} {refusal}: {why}", param="model")


def _offered(method: str, pattern: str | None) -> Pattern:
    """Return the requested or default pattern; raises InvalidPattern where the method does not offer it."""
    patterns = get_method(method).patterns
    parsed = parse_pattern(pattern or patterns[0])
    if parsed.family not in patterns:
        raise InvalidPattern(
            f"{method} does not offer pattern {parsed.text!r}: use {', '.join(patterns)}", param="pattern"
        )
    return parsed


def _layout(description: Description, method: str, pattern: str | None, requested: Layout | None) -> Layout:
    """Return the layout of the result: the requested one where layers get narrower, else the model's own."""
    removal = get_method(method).variant(pattern).removal
    if removal is not None and removal.narrows:
        return requested or description.layout
    if requested == "per_layer" and description.layout == "uniform":
        why = f"output.layout: {method} leaves layers as wide as they are, so 'per_layer' would change nothing"
        why = description.model_task.inapplicable.get("output.layout", f"{why}: leave it out")
        raise InvalidRequest(why, param="output.layout")
    return description.layout


def _without_target(
    description: Description,
    method: str,
    pattern: str | None,
    sparsity: float | None,
    parameters: Mapping[str, object],
) -> ResolvedRequest:
    _require_no_target(method, pattern, sparsity)
    checked = parse_parameters(method, parameters)
    if checked.sensitivity_options is not None:
        checked = _with_measured_defaults(description, checked, checked.sensitivity_options)
    return ResolvedRequest(method, _NOTHING_GOES, None, checked, description.layout)


def _require_no_target(method: str, pattern: str | None, sparsity: float | None) -> None:
    if sparsity is not None:
        raise InvalidSparsity(f"{method} prunes nothing: leave sparsity out", param="sparsity")
    if pattern not in (None, _NOTHING_GOES):
        raise InvalidPattern(
            f"{method} prunes nothing and keeps what zeros there are: leave pattern out", param="pattern"
        )


def calibrated_method(method: str, parameters: MethodParameters) -> MethodInfo:
    """Return the method that reads the calibration set: the job's own, or the one whose sensitivity it measures."""
    measured = parameters.sensitivity_options
    return get_method(method if measured is None else measured.method)


def calibrated_variant(method: str, pattern: str, parameters: MethodParameters) -> Variant:
    """Return the variant of `calibrated_method`, for the job's pattern or the one whose sensitivity is measured."""
    measured = parameters.sensitivity_options
    return calibrated_method(method, parameters).variant(pattern if measured is None else measured.pattern)


def _with_measured_defaults(
    description: Description, parameters: MethodParameters, options: SensitivityOptions
) -> MethodParameters:
    """Check that a sensitivity job's method can prune the model layer by layer.

    `options` are those in `parameters`, which are returned with the defaults of that method filled in.
    """
    if description.has_experts:
        raise UnsupportedArchitecture(
            f"sensitivity: the experts of {description.architecture} are not measured yet", param="model"
        )
    own = _at_one_rate(options.method, options.pattern, {"seed": parameters.seed} | options.parameters)
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
        able_with = _measurable_patterns(info)
        if not able_with:
            able = [each.id for each in METHODS.values() if _measurable_patterns(each)]
            raise InvalidParameters(
                f"parameters.method: {options.method} does not prune a layer at a rate in one go: use one of "
                f"{', '.join(able)}",
                param="parameters.method",
            )
        pattern = parse_pattern(options.pattern or info.patterns[0])
        if not info.variant(pattern.text).alone_measurable:
            raise InvalidParameters(
                f"parameters.pattern: {options.method} does not prune a layer at a rate in one go with pattern "
                f"{pattern.text!r}: use {', '.join(able_with)}",
                param="parameters.pattern",
            )
        rates = options.rates_of(pattern)
        measured = resolve_request(description, options.method, pattern.text, rates[-1], own).parameters
    except InvalidRequest as error:
        within = (error.param or "method").removeprefix("parameters.")
        error.param = f"parameters.{within if within in ('method', 'pattern', 'rates') else 'parameters'}"
        raise
    own = measured.model_dump(mode="json")
    return parameters.model_copy(update={"pattern": pattern.text, "rates": rates, "parameters": own})


def _measurable_patterns(info: MethodInfo) -> list[PatternFamily]:
    return [each for each in info.patterns if info.variant(each).alone_measurable]


def _at_one_rate(method: str, pattern: str | None, parameters: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters with allocation 'uniform' in place of the method's default, unless one is requested."""
    if method not in METHODS:
        return dict(parameters)
    defaults = METHODS[method].variant(pattern).parameters.model_construct()
    return ({} if defaults.allocation_options is None else {"allocation": "uniform"}) | dict(parameters)
