"""Weights: single weights become zero, and every tensor keeps its shape. The layers pruned, and their checks."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from core.engine.architectures.description import Description
from core.engine.architectures.structure import LinearShape
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.cuts import Cut, Figure, Removal, RemovalPlan, SizeScale
from core.engine.options.axes import AllocationOptions, MethodParameters
from core.engine.options.patterns import Pattern, require_divisible
from secateur_wire.errors import InvalidParameters
from secateur_wire.metrics import Sparsity

_ALLOCATION_TOLERANCE = 0.005
"""Largest difference between the mean of an explicit allocation and the requested sparsity."""


class LayerSelection(MethodParameters):
    """Choice of the prunable linear layers."""

    skip_layers: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list, description="Numbers of decoder layers that are not pruned; the first is 0."
    )
    skip_modules: list[str] = Field(
        default_factory=list,
        description="Linear layers that are not pruned: a module name such as 'down_proj', or a pattern over full "
        "names such as 'model.layers.0.*'.",
    )
    include_lm_head: bool = Field(
        False, description="Prune the output head (lm_head) too. Refused if it shares its weights with the embeddings."
    )


class WeightRemoval(Removal):
    """Removal of single weights, which become zero."""

    def check(self, cut: Cut) -> RemovalPlan:
        _check_masks(cut.description, selection_of(cut.options), cut.pattern, cut.sparsity)
        return RemovalPlan()

    def reachable(self, cut: Cut) -> Sequence[float]:
        linears = prunable_linears(cut.description, selection_of(cut.options))
        return [0.0, sum(each.numel for each in linears) / cut.description.parameters]

    def scale(self, cut: Cut, figure: Figure) -> SizeScale:
        """Return the scale of nonzero parameters or of bytes, where each prunable weight also takes a bit of a mask."""
        description = cut.description
        linears = prunable_linears(description, selection_of(cut.options))
        prunable = sum(linear.numel for linear in linears)
        margin = 0.5 / min(linear.in_features for linear in linears)
        if figure == "parameters":
            return SizeScale(description.parameters, prunable, margin)
        return SizeScale(description.bytes + prunable / 8, prunable * WEIGHT_BYTES[description.dtype], margin)

    def nearest(self, cut: Cut, figure: Figure) -> int:
        scale = self.scale(cut, figure)  # all sparsities below 1 are reachable
        return math.floor(scale.start - scale.slope * (1 - scale.margin)) + 1

    def outcome(self, share: Sparsity, layers: Sequence[Mapping[str, Any]], pattern: str | None) -> str:
        kind = "" if pattern is None else f" ({pattern})"
        return f"{share.prunable:.2%} of the prunable weights are zero{kind}, {share.model:.2%} of all parameters."


WEIGHTS = WeightRemoval("weights", zeroes=True, keeps_zeros=True, offer="weights")


def prunable_linears(description: Description, parameters: LayerSelection) -> list[LinearShape]:
    """Return the layers a request prunes, in order, the output head last if requested.

    They are linear layers, and in a classifier also convolutions.

    Raises InvalidParameters where a skip entry matches nothing, nothing is left, or the requested head is tied or
    missing.
    """
    for layer in parameters.skip_layers:
        if layer >= description.layers:
            raise InvalidParameters(
                f"parameters.skip_layers: layer {layer} does not exist; the model has layers 0 to "
                f"{description.layers - 1}",
                param="parameters.skip_layers",
            )
    for pattern in parameters.skip_modules:
        if not any(linear.matches([pattern]) for linear in description.linears):
            raise InvalidParameters(
                f"parameters.skip_modules: {pattern!r} matches no linear layer; {description.named_linears}",
                param="parameters.skip_modules",
            )
    linears = [
        linear
        for linear in description.linears
        if linear.layer not in parameters.skip_layers and not linear.matches(parameters.skip_modules)
    ]
    if parameters.include_lm_head:
        _require_applicable(description, "parameters.include_lm_head")
        model = description.language_model
        if model.tied_embeddings:
            raise InvalidParameters(
                "parameters.include_lm_head: the output head shares its weights with the embeddings, which cannot be "
                "pruned",
                param="parameters.include_lm_head",
            )
        linears.append(
            LinearShape(
                name=model.known_as.head,
                layer=description.layers,
                out_features=model.vocabulary_size,
                in_features=model.hidden_size,
            )
        )
    if not linears:
        raise InvalidParameters(
            "parameters: every linear layer is skipped, so nothing is left to prune", param="parameters"
        )
    return linears


def selection_of(parameters: MethodParameters) -> LayerSelection:
    """Return the choice of prunable layers in a method's parameters; every layer where they do not restrict it."""
    if isinstance(parameters, LayerSelection):
        return parameters
    return LayerSelection(skip_modules=[*parameters.layers_left_dense])


def _require_applicable(description: Description, param: str) -> None:
    why = description.model_task.inapplicable.get(param)
    if why is not None:
        raise InvalidParameters(why, param=param)


def _check_masks(description: Description, checked: LayerSelection, parsed: Pattern, sparsity: float) -> None:
    linears = prunable_linears(description, checked)
    require_divisible(linears, parsed)
    compensation, allocation = checked.compensation_options, checked.allocation_options
    if checked.differentiates_images:
        _require_applicable(description, "parameters.mode")
    if compensation is not None and compensation.compensation:
        _require_applicable(description, "parameters.compensation")
    if allocation is not None:
        _check_allocation(allocation, description.layers, linears, parsed.is_n_m, sparsity)
        _check_gradients(allocation, description)
    if checked.ranks_entire_model and any(linear.experts for linear in linears):
        raise InvalidParameters(
            "parameters.scope: 'model' ranks all weights together, but each expert is pruned alone: use 'tensor' or "
            "'row', or skip the experts (parameters.skip_modules)",
            param="parameters.scope",
        )
    if checked.ranks_entire_model and (parsed.is_n_m or allocation is None or allocation.allocation != "uniform"):
        raise InvalidParameters(
            "parameters.scope: 'model' ranks all weights together, so it needs pattern 'unstructured' and allocation "
            "'uniform'",
            param="parameters.scope",
        )


def _check_gradients(parameters: AllocationOptions, description: Description) -> None:
    """Require that gradients can be computed block by block, where the allocation depends on gradients."""
    why = description.refusal("resume")
    if parameters.allocation == "fisher" and why is not None:
        raise InvalidParameters(
            f"parameters.allocation: 'fisher' takes gradients of one block after the other, {why} in "
            f"{description.architecture}: use 'uniform' or 'owl'",
            param="parameters.allocation",
        )


def _check_allocation(
    parameters: AllocationOptions, layers: int, linears: list[LinearShape], is_n_m: bool, sparsity: float
) -> None:
    where = "parameters.allocation"
    allocation = parameters.allocation
    if allocation == "uniform":
        return
    if is_n_m:
        raise InvalidParameters(f"{where}: pattern n:m fixes every layer's sparsity, only 'uniform' fits", param=where)
    if isinstance(allocation, str) and not parameters.measured_allocation:
        raise InvalidParameters(
            f"{where}: the results of {allocation!r} are looked up when a job is submitted: give the list itself here",
            param=where,
        )
    if isinstance(allocation, list):
        if len(allocation) != layers:
            raise InvalidParameters(
                f"{where}: {len(allocation)} sparsities given, but the model has {layers} layers", param=where
            )
        listed = [*allocation, sparsity]  # the output head is one layer further and has the request's own sparsity
        removed = sum(listed[linear.layer] * linear.numel for linear in linears)
        mean = removed / sum(linear.numel for linear in linears)
        if abs(mean - sparsity) > _ALLOCATION_TOLERANCE:
            raise InvalidParameters(
                f"{where}: the list removes {mean:.4f} of the prunable weights, but sparsity asks for {sparsity}: "
                "make them agree",
                param=where,
            )
    elif allocation == "owl" and _differ_in_weights(linears):
        raise InvalidParameters(
            f"{where}: 'owl' keeps the mean of the layers' sparsities, which is the model's sparsity only if all "
            "layers have the same number of weights. Here some have experts and some have none: use 'uniform' or "
            "'fisher'",
            param=where,
        )
    # Re-centring can move one layer by up to twice the range from the mean.
    elif allocation == "owl" and not 2 * parameters.owl_range <= sparsity < 1 - 2 * parameters.owl_range:
        raise InvalidParameters(
            f"parameters.owl_range: {sparsity} ± 2·{parameters.owl_range} leaves [0, 1); choose a smaller range",
            param="parameters.owl_range",
        )


def _differ_in_weights(linears: Iterable[LinearShape]) -> bool:
    """Return True if some layers have experts, and the layers' numbers of prunable weights differ."""
    weights = Counter[int]()
    has_experts = False
    for linear in linears:
        weights[linear.layer] += linear.numel
        has_experts = has_experts or linear.experts is not None
    return has_experts and len(set(weights.values())) > 1
