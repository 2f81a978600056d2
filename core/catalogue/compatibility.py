"""Whether a request fits a model: the checks that must fail before a job is queued, not hours into it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from core.catalogue.families import FAMILIES
from core.catalogue.methods import get_method
from core.catalogue.model_folder import LinearShape, ModelDescription
from core.catalogue.parameters import Allocated, MethodParameters, Selection, Width
from core.catalogue.patterns import UNSTRUCTURED, Pattern, parse_pattern, resolve_sparsity
from core.catalogue.structure import (
    Counts,
    ModelStructure,
    attention_mode,
    layer_count,
    uniform_counts,
    uniform_ladder,
)
from core.errors import IndivisibleWidth, InvalidParameters, InvalidPattern, InvalidSparsity, UnusableModel

_AGREEMENT = 0.005
"""How far the mean of an explicit allocation may lie from the sparsity asked for."""


class ResolvedRequest(BaseModel):
    """What a request means once defaults are filled in."""

    model_config = ConfigDict(frozen=True)

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


def prunable_linears(description: ModelDescription, parameters: Selection) -> list[LinearShape]:
    """The linear layers a request prunes, in order, the output head last if asked for.

    Raises InvalidParameters where a skip entry names nothing, nothing is left, or the head is tied.
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
                f"parameters.skip_modules: {pattern!r} matches no linear layer; layer 0 has "
                f"{', '.join(each.name for each in description.linears if each.layer == 0)}",
                param="parameters.skip_modules",
            )
    linears = [
        linear
        for linear in description.linears
        if linear.layer not in parameters.skip_layers and not linear.matches(parameters.skip_modules)
    ]
    if parameters.include_lm_head:
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


DEFAULT_ROUND_TO = {"cpu": 8, "cuda": 64}


def require_counts(
    description: ModelDescription, parameters: Width, ratio: float, *, device: str = "cpu", at_least: bool = False
) -> Counts:
    """What every layer keeps, on that kind of device; raises InvalidSparsity naming the nearest ratio there is.

    `at_least`: no less than `ratio` goes, else what is nearest to it.
    """
    structure = require_structure(description)
    return uniform_counts(
        structure,
        hidden_size=description.hidden_size,
        parameters=description.parameters,
        ratio=ratio,
        attention=attention_mode(parameters.attention, structure),
        round_to=parameters.round_to or DEFAULT_ROUND_TO[device],
        at_least=at_least,
    )


def reachable_sparsities(
    description: ModelDescription, parameters: MethodParameters, *, device: str = "cpu"
) -> list[float]:
    """Every share of the model's parameters that structured pruning can remove with all layers of one shape, on that
    kind of device: ascending, the first 0. A job with one of them for its sparsity removes just that.
    """
    structure = require_structure(description)
    if isinstance(parameters, Width):
        ladder = uniform_ladder(
            structure,
            hidden_size=description.hidden_size,
            attention=attention_mode(parameters.attention, structure),
            round_to=parameters.round_to or DEFAULT_ROUND_TO[device],
        )
        return [each.removed * len(structure.layers) / description.parameters for each in ladder]
    layer = structure.parameters / len(structure.layers)
    return [count * layer / description.parameters for count in range(len(structure.layers))]


def require_structure(description: ModelDescription) -> ModelStructure:
    """What can be removed; raises UnusableModel where an earlier version described the model without it."""
    if description.structure is None:
        raise UnusableModel(
            "the model was registered before structured pruning was there: register it again under another name",
            param="model",
        )
    return description.structure


def check_job(
    description: ModelDescription,
    method: str,
    pattern: str | None,
    sparsity: float | None,
    parameters: dict[str, Any],
    *,
    at_least: bool = False,
) -> ResolvedRequest:
    """Check a request against a model and fill in its defaults; raises the InvalidRequest kind that names the fault.

    `at_least`: the sparsity stands for a target, and where groups are removed no less of it may go.
    """
    info = get_method(method)
    if not info.prunes:
        return _without_target(description, method, pattern, sparsity, parameters)
    parsed = parse_pattern(pattern or info.patterns[0])
    kind = "n:m" if parsed.is_n_m else parsed.text
    if kind not in info.patterns:
        raise InvalidPattern(
            f"{method} does not offer pattern {parsed.text!r}: use {', '.join(info.patterns)}", param="pattern"
        )
    resolved = resolve_sparsity(parsed, sparsity)
    checked = parse_parameters(method, parameters)
    if isinstance(checked, Selection):
        _check_masks(description, checked, parsed, resolved)
    elif isinstance(checked, Width):
        require_counts(description, checked, resolved, at_least=at_least)
    else:
        structure = require_structure(description)
        layer_count(structure, parameters=description.parameters, ratio=resolved, at_least=at_least)
    return ResolvedRequest(
        method=method, pattern=parsed.text, sparsity=resolved, parameters=checked.model_dump(mode="json")
    )


def _check_masks(description: ModelDescription, checked: Selection, parsed: Pattern, sparsity: float) -> None:
    linears = prunable_linears(description, checked)
    if parsed.of is not None:
        for linear in linears:
            if linear.in_features % parsed.of:
                raise IndivisibleWidth(
                    f"{linear.name} has {linear.in_features} input weights per row, which {parsed.of} does not divide: "
                    f"pattern {parsed.text} cannot be applied; skip it (parameters.skip_modules) or choose another m",
                    param="pattern",
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


def _without_target(
    description: ModelDescription, method: str, pattern: str | None, sparsity: float | None, parameters: dict[str, Any]
) -> ResolvedRequest:
    if sparsity is not None:
        raise InvalidSparsity(f"{method} prunes nothing: leave sparsity out", param="sparsity")
    if pattern not in (None, UNSTRUCTURED.text):
        raise InvalidPattern(
            f"{method} prunes nothing and keeps what zeros there are: leave pattern out", param="pattern"
        )
    checked = parse_parameters(method, parameters).model_dump(mode="json")
    return ResolvedRequest(method=method, pattern=UNSTRUCTURED.text, sparsity=None, parameters=checked)


def _check_allocation(
    parameters: Allocated, layers: int, linears: list[LinearShape], is_n_m: bool, sparsity: float
) -> None:
    where = "parameters.allocation"
    allocation = parameters.allocation
    if allocation == "uniform":
        return
    if is_n_m:
        raise InvalidParameters(f"{where}: pattern n:m fixes every layer's sparsity, only 'uniform' fits", param=where)
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
