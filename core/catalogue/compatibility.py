"""Whether a request fits a model: the checks that must fail before a job is queued, not hours into it."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from core.catalogue.classifiers import ClassifierDescription
from core.catalogue.descriptions import Description
from core.catalogue.families import FAMILIES
from core.catalogue.filter_parameters import FilterParameters
from core.catalogue.linear_shape import LinearShape
from core.catalogue.method_info import MethodInfo
from core.catalogue.methods import METHODS, get_method
from core.catalogue.model_folder import ModelDescription
from core.catalogue.narrowing import require_narrowing, require_structure
from core.catalogue.parameters import Allocated, MethodParameters, Selection, Width
from core.catalogue.patterns import UNSTRUCTURED, Pattern, parse_pattern, resolve_sparsity
from core.catalogue.per_layer import Layout
from core.catalogue.sensitivity_parameters import SensitivityParameters
from core.catalogue.structure import layer_count
from core.errors import IndivisibleWidth, InvalidParameters, InvalidPattern, InvalidRequest, InvalidSparsity

_AGREEMENT = 0.005
"""How far the mean of an explicit allocation may lie from the sparsity asked for."""


class ResolvedRequest(BaseModel):
    """What a request means once defaults are filled in. `layout` is that of the model that comes out."""

    model_config = ConfigDict(frozen=True)

    layout: Layout = "uniform"
    method: str
    pattern: str
    sparsity: float | None
    parameters: dict[str, Any]


def parse_parameters(method_id: str, parameters: dict[str, Any]) -> MethodParameters:
    """Validate a method's parameters; raises InvalidParameters with the dotted name of the first one at fault."""
    try:
        return get_method(method_id).parameters.model_validate(parameters)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(["parameters", *(str(part) for part in first["loc"])])
        known = ", ".join(get_method(method_id).parameters.model_fields)
        unknown = f"; {method_id} takes: {known}" if first["type"] == "extra_forbidden" else ""
        raise InvalidParameters(f"{where}: {first['msg']}{unknown}", param=where) from None


def prunable_linears(description: Description, parameters: Selection) -> list[LinearShape]:
    """The linear layers a request prunes, in order, the output head last if asked for; a classifier's convolutions too.

    Raises InvalidParameters where a skip entry names nothing, nothing is left, or the head is tied or none.
    """
    for layer in parameters.skip_layers:
        if layer >= description.layers:
            raise InvalidParameters(
                f"parameters.skip_layers: layer {layer} does not exist, the model has layers 0 to "
                f"{description.layers - 1}",
                param="parameters.skip_layers",
            )
    for pattern in parameters.skip_modules:
        if not any(linear.matches([pattern]) for linear in description.linears):
            raise InvalidParameters(
                f"parameters.skip_modules: {pattern!r} matches no linear layer; {_some_names(description)}",
                param="parameters.skip_modules",
            )
    linears = [
        linear
        for linear in description.linears
        if linear.layer not in parameters.skip_layers and not linear.matches(parameters.skip_modules)
    ]
    if parameters.include_lm_head:
        if isinstance(description, ClassifierDescription):
            raise InvalidParameters(
                "parameters.include_lm_head: an image classifier's last layer is prunable like any other: leave it out",
                param="parameters.include_lm_head",
            )
        if description.tied_embeddings:
            raise InvalidParameters(
                "parameters.include_lm_head: the head is tied to the embeddings, which are not prunable",
                param="parameters.include_lm_head",
            )
        linears.append(
            LinearShape(
                name=FAMILIES[description.architecture].head,
                layer=description.layers,
                out_features=description.vocabulary_size,
                in_features=description.hidden_size,
            )
        )
    if not linears:
        raise InvalidParameters(
            "parameters: every linear layer is skipped, nothing is left to prune", param="parameters"
        )
    return linears


def _some_names(description: Description) -> str:
    if isinstance(description, ClassifierDescription):
        return f"the model has {', '.join(each.name for each in description.linears[:20])}"
    return f"layer 0 has {', '.join(each.name for each in description.linears if each.layer == 0)}"


def check_job(
    description: Description,
    method: str,
    pattern: str | None,
    sparsity: float | None,
    parameters: dict[str, Any],
    *,
    layout: Layout | None = None,
    at_least: bool = False,
) -> ResolvedRequest:
    """Check a request against a model and fill in its defaults; raises the InvalidRequest kind that names the fault.

    `layout` is the one asked for, None: the model's own. `at_least`: the sparsity stands for a target, and where groups
    are removed no less of it may go.
    """
    info = get_method(method)
    if description.task not in info.task_families:
        there = ", ".join(each.id for each in METHODS.values() if description.task in each.task_families)
        raise InvalidRequest(
            f"{method} is no method for {_KINDS[description.task]}, which {description.architecture} is: use one of "
            f"{there}",
            param="method",
        )
    if isinstance(description, ClassifierDescription):
        return _check_classifier(description, method, pattern, sparsity, parameters, layout)
    layout = _layout(description, method, layout)
    if not info.prunes:
        return _without_target(description, method, pattern, sparsity, parameters, layout=description.layout)
    parsed = _offered(method, pattern)
    resolved = resolve_sparsity(parsed, sparsity)
    checked = parse_parameters(method, parameters)
    if isinstance(checked, Selection):
        _check_masks(description, checked, parsed, resolved)
    elif isinstance(checked, Width):
        require_narrowing(description, checked, resolved, layout=layout, at_least=at_least)
    else:
        structure = require_structure(description)
        layer_count(structure, parameters=description.parameters, ratio=resolved, at_least=at_least)
    return ResolvedRequest(
        layout=layout,
        method=method,
        pattern=parsed.text,
        sparsity=resolved,
        parameters=checked.model_dump(mode="json"),
    )


_KINDS = {"language-model": "language models", "image-classification": "image classifiers"}


def _offered(method: str, pattern: str | None) -> Pattern:
    """The pattern that is meant; raises InvalidPattern where the method does not offer it."""
    patterns = get_method(method).patterns
    parsed = parse_pattern(pattern or patterns[0])
    if ("n:m" if parsed.is_n_m else parsed.text) not in patterns:
        raise InvalidPattern(
            f"{method} does not offer pattern {parsed.text!r}: use {', '.join(patterns)}", param="pattern"
        )
    return parsed


def _check_classifier(
    description: ClassifierDescription,
    method: str,
    pattern: str | None,
    sparsity: float | None,
    parameters: dict[str, Any],
    layout: Layout | None,
) -> ResolvedRequest:
    """Of filters, which may go together only the opened model says: how many are asked for is checked there."""
    if layout == "per_layer":
        raise InvalidRequest(
            "output.layout belongs to language models, an image classifier's filters go layer by layer: leave it out",
            param="output.layout",
        )
    if not get_method(method).prunes:
        return _without_target(description, method, pattern, sparsity, parameters, layout="uniform")
    parsed = _offered(method, pattern)
    resolved = resolve_sparsity(parsed, sparsity)
    checked = parse_parameters(method, parameters)
    if isinstance(checked, Selection):
        _check_masks(description, checked, parsed, resolved)
    return ResolvedRequest(
        method=method, pattern=parsed.text, sparsity=resolved, parameters=checked.model_dump(mode="json")
    )


def _layout(description: ModelDescription, method: str, asked: Layout | None) -> Layout:
    """The layout of what comes out: what was asked for where layers get narrower, else the model's own."""
    if issubclass(get_method(method).parameters, Width):
        return asked or description.layout
    if asked == "per_layer" and description.layout == "uniform":
        raise InvalidRequest(
            f"output.layout: {method} leaves layers as wide as they are, so 'per_layer' would change nothing: leave it "
            "out",
            param="output.layout",
        )
    return description.layout


def _check_masks(description: Description, checked: Selection, parsed: Pattern, sparsity: float) -> None:
    linears = prunable_linears(description, checked)
    require_divisible(linears, parsed)
    if getattr(checked, "mode", None) == "exact" and isinstance(description, ModelDescription):
        raise InvalidParameters(
            "parameters.mode: 'exact' is for image classifiers, whose derivatives of single images it takes: use "
            "'layer_wise'",
            param="parameters.mode",
        )
    if isinstance(checked, Allocated):
        _check_allocation(checked, description.layers, linears, parsed.is_n_m, sparsity)
    if getattr(checked, "scope", None) == "model" and (
        parsed.is_n_m or getattr(checked, "allocation", None) != "uniform"
    ):
        raise InvalidParameters(
            "parameters.scope: 'model' ranks all weights together, so it needs pattern 'unstructured' and allocation "
            "'uniform'",
            param="parameters.scope",
        )


def require_divisible(linears: Iterable[LinearShape], pattern: Pattern) -> None:
    """Raises IndivisibleWidth naming the first layer whose rows are no multiple of m of `n:m`."""
    for linear in linears:
        width = linear.in_features // linear.kernel
        if pattern.of is not None and width % pattern.of:
            inputs = "input weights per row" if linear.kernel == 1 else "input channels"
            raise IndivisibleWidth(
                f"{linear.name} has {width} {inputs}, which {pattern.of} does not divide: pattern {pattern.text} "
                "cannot be applied; skip it (parameters.skip_modules) or choose another m",
                param="pattern",
            )


def _without_target(
    description: Description,
    method: str,
    pattern: str | None,
    sparsity: float | None,
    parameters: dict[str, Any],
    *,
    layout: Layout,
) -> ResolvedRequest:
    if sparsity is not None:
        raise InvalidSparsity(f"{method} prunes nothing: leave sparsity out", param="sparsity")
    if pattern not in (None, UNSTRUCTURED.text):
        raise InvalidPattern(
            f"{method} prunes nothing and keeps what zeros there are: leave pattern out", param="pattern"
        )
    checked = parse_parameters(method, parameters)
    if isinstance(checked, SensitivityParameters):
        checked = _check_measured(description, checked)
    return ResolvedRequest(
        layout=layout,
        method=method,
        pattern=UNSTRUCTURED.text,
        sparsity=None,
        parameters=checked.model_dump(mode="json"),
    )


def method_at_work(request: ResolvedRequest) -> MethodInfo:
    """The method that reads the calibration set: the request's own, or the one whose sensitivity it measures."""
    info = get_method(request.method)
    return get_method(request.parameters["method"]) if info.measures else info


def _check_measured(description: Description, asked: SensitivityParameters) -> SensitivityParameters:
    """What a sensitivity job measures must be able to prune the model, layer by layer; its defaults are filled in."""
    own = {"seed": asked.seed} | asked.parameters
    for name, only in (("allocation", "uniform"), ("include_lm_head", False)):
        if own.get(name, only) != only:
            raise InvalidParameters(
                f"parameters.parameters.{name}: each layer is measured alone and at the same rates: leave {name} out",
                param=f"parameters.parameters.{name}",
            )
    if own.get("scope") == "model":
        raise InvalidParameters(
            "parameters.parameters.scope: 'model' ranks the weights of all layers together, here each is pruned alone: "
            "use 'tensor' or 'row'",
            param="parameters.parameters.scope",
        )
    try:
        info = get_method(asked.method)
        if not _is_measurable(info):
            able = [each.id for each in METHODS.values() if _is_measurable(each)]
            raise InvalidParameters(
                f"parameters.method: {asked.method} does not prune a layer at a rate in one go: use one of "
                f"{', '.join(able)}",
                param="parameters.method",
            )
        pattern = parse_pattern(asked.pattern or info.patterns[0])
        rates = asked.rates_of(pattern)
        parameters = check_job(description, asked.method, pattern.text, rates[-1], own).parameters
    except InvalidRequest as error:
        within = (error.param or "method").removeprefix("parameters.")
        error.param = f"parameters.{within if within in ('method', 'pattern', 'rates') else 'parameters'}"
        raise
    return asked.model_copy(update={"pattern": pattern.text, "rates": rates, "parameters": parameters})


def _is_measurable(info: MethodInfo) -> bool:
    """Whether it can prune one layer alone, at any rate: by its weights without training, or by its filters."""
    if issubclass(info.parameters, FilterParameters):
        return True
    return info.prunes and not info.needs.training and issubclass(info.parameters, Selection)


def _check_allocation(
    parameters: Allocated, layers: int, linears: list[LinearShape], is_n_m: bool, sparsity: float
) -> None:
    where = "parameters.allocation"
    allocation = parameters.allocation
    if allocation == "uniform":
        return
    if is_n_m:
        raise InvalidParameters(f"{where}: pattern n:m fixes every layer's sparsity, only 'uniform' fits", param=where)
    if isinstance(allocation, str) and allocation != "owl":
        raise InvalidParameters(
            f"{where}: what {allocation!r} measured is looked up when a job is submitted: give the list itself here",
            param=where,
        )
    if isinstance(allocation, list):
        if len(allocation) != layers:
            raise InvalidParameters(
                f"{where}: {len(allocation)} sparsities given, the model has {layers} layers", param=where
            )
        listed = [*allocation, sparsity]  # the output head, one layer further, keeps to the request's own
        removed = sum(listed[linear.layer] * linear.numel for linear in linears)
        mean = removed / sum(linear.numel for linear in linears)
        if abs(mean - sparsity) > _AGREEMENT:
            raise InvalidParameters(
                f"{where}: the list removes {mean:.4f} of the prunable weights, sparsity asks for {sparsity}: make "
                "them agree",
                param=where,
            )
    # Re-centring can move one layer by up to twice the range from the mean.
    elif sparsity + 2 * parameters.owl_range >= 1 or sparsity - 2 * parameters.owl_range < 0:
        raise InvalidParameters(
            f"parameters.owl_range: {sparsity} ± 2·{parameters.owl_range} leaves [0, 1); choose a smaller range",
            param="parameters.owl_range",
        )
