"""Number of units to remove from each layer, computed before queueing and again by the engine."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from core.device_kinds import CPU
from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import (
    LEAST_CHANNEL_SHARE,
    CostLimit,
    LayerCounts,
    WidthReduction,
    WidthRequest,
    aligned_widths,
    alike_counts,
    channels_first,
    coarse_options,
    counts_channels_first,
    counts_for_ratio,
    fine_parameters,
    layer_with_all_kinds,
    removable_parameters,
    require_reachable,
    width_steps,
)
from core.engine.architectures.units import AttentionMode, KindName, attention_mode, removed_kinds
from core.engine.removals.widths.checks import attention_within, check_offered, check_width
from core.engine.removals.widths.options import WidthOptions
from secateur_wire.errors import InvalidParameters, InvalidSparsity
from secateur_wire.job_body import Layout

_OFFERED_WIDTHS = 32
"""Approximate number of widths that a layer may have where costs decide."""


def plan_width_reduction(
    description: ModelDescription,
    parameters: WidthOptions,
    ratio: float,
    *,
    layout: Layout = "uniform",
    round_to: int = CPU.round_to,
    at_least: bool = False,
    costs: CostLimit | None = None,
) -> WidthReduction:
    """Return the width reduction that removes `ratio` of the model.

    Widths are multiples of `round_to` where the parameters leave it open. With `at_least` no less is removed; without
    it the share is the nearest possible. With `costs` the ratio is open, and their limit takes its place.

    Raises InvalidSparsity naming the nearest possible ratio, and InvalidParameters where the layout does not allow the
    request, or nothing is left to remove.
    """
    structure = require_structure(description)
    check_offered(description, parameters)
    check_width(description, structure, parameters, layout)
    attention = attention_within(structure, parameters, layout)
    heads = description.known_as.axes("heads") if attention != "none" else ()
    if parameters.cuts_behind_norms and any(axis.module.endswith("_norm") for axis in heads):
        raise InvalidParameters(
            f"parameters.attention: {description.architecture} normalises all heads together, so the remaining ones "
            "cannot be fitted while others go; use 'none' (channels only)",
            param="parameters.attention",
        )
    protected = frozenset[int]() if layout == "uniform" else parameters.protected(description.layers)
    round_to = parameters.round_to or round_to
    if costs is not None:
        return WidthReduction(attention, protected, None, None, round_to, costs=costs)
    parameters.check_dropped_layers(description, ratio, description.layers - len(protected))
    is_open = parameters.attention == "auto" and attention != "none"
    request = WidthRequest(
        removed_kinds(attention),
        description.parameters,
        ratio,
        round_to,
        hidden_size=description.hidden_size if layout == "uniform" else None,
        protected=protected,
        at_least=at_least,
    )
    if parameters.ranks_layers(layout):
        mode, ranking = _ranking(structure, attention, request, is_open=is_open)
        return WidthReduction(mode, protected, None, ranking, round_to)
    counts = (counts_channels_first if is_open else counts_for_ratio)(structure, request)
    limit = request.wanted if at_least else 0.0
    return WidthReduction(_mode(structure, counts, attention), protected, counts, None, round_to, limit)


def _ranking(
    structure: ModelStructure, attention: AttentionMode, request: WidthRequest, *, is_open: bool
) -> tuple[AttentionMode, WidthRequest]:
    """Return the ranking that reaches the ratio, with its attention mode; raises InvalidSparsity where none does.

    Where the mode `is_open`, only channels are ranked, as long as a share `LEAST_CHANNEL_SHARE` of them stays.
    """
    only = replace(request, kinds=removed_kinds("none"))
    free = [layer for layer in range(len(structure.layers)) if layer not in request.protected]
    channels = sum(removable_parameters(structure, layer, only.kinds) for layer in free)
    if is_open and request.wanted <= (1 - LEAST_CHANNEL_SHARE) * channels:
        with suppress(InvalidSparsity):
            return "none", require_reachable(structure, only)
    return attention, require_reachable(structure, request)


def may_lose_heads(description: ModelDescription, parameters: WidthOptions) -> bool:
    """Return True if heads may be removed; raises InvalidParameters where the family cannot lose them."""
    return attention_mode(parameters.attention, require_structure(description)) != "none"


def _mode(structure: ModelStructure, counts: Sequence[LayerCounts], attention: AttentionMode) -> AttentionMode:
    """Return the attention mode that gives a model these counts; none where no heads are removed."""
    coarse = [kind for kind in removed_kinds(attention) if not kind.is_fine]
    loses_heads = any(
        each.units[kind.name] < kind.units(shape)
        for each, shape in zip(counts, structure.layers, strict=True)
        for kind in coarse
    )
    return attention if loses_heads else "none"


def rounding_cost(
    description: ModelDescription,
    parameters: WidthOptions,
    ratio: float,
    *,
    layout: Layout = "uniform",
    at_least: bool = False,
) -> float:
    """Return the largest deviation from `ratio`, relative to it, that the rounding of widths causes.

    Where the units of all layers are ranked together, it is one step of one layer.
    """
    plan = plan_width_reduction(description, parameters, ratio, layout=layout, at_least=at_least)
    wanted = ratio * description.parameters
    if plan.counts is not None:
        return abs(sum(each.removed for each in plan.counts) - wanted) / wanted if wanted else 0.0
    structure = require_structure(description)
    step = plan.round_to * fine_parameters(structure, plan.kinds)
    return step / wanted if wanted else 0.0


def reduction_of_remaining_layers(
    description: ModelDescription,
    parameters: WidthOptions,
    ratio: float,
    left: Sequence[int],
    *,
    layout: Layout,
    round_to: int,
    at_least: bool,
) -> WidthReduction:
    """Return the width reduction of the layers `left` after whole layers were removed, for `ratio` of the whole model.

    Raises InvalidSparsity where there is none.
    """
    structure = require_structure(description)
    rest = structure.of_layers(left)
    without = description.model_copy(update={"structure": rest, "layers": len(left)})
    dropped = (structure.parameters - rest.parameters) / description.parameters
    return plan_width_reduction(
        without, parameters, max(ratio - dropped, 0.0), layout=layout, round_to=round_to, at_least=at_least
    )


def reachable_widths(
    description: ModelDescription,
    parameters: WidthOptions,
    *,
    layout: Layout = "uniform",
    round_to: int = CPU.round_to,
) -> list[float]:
    """Return the shares of the model's parameters that can be removed with heads and channels.

    They ascend from 0 to the largest one. With all layers of one shape, every share is listed, and a job with a listed
    sparsity removes exactly that share. Where the number of heads or layers is still to be measured, it removes the
    share to within one aligned group of channels in every layer.
    """
    structure = require_structure(description)
    layers = range(len(structure.layers))
    kinds = removed_kinds(attention_within(structure, parameters, layout))
    round_to = parameters.round_to or round_to
    steps_of = channels_first if parameters.attention == "auto" else width_steps
    if layout == "uniform":
        complete = layer_with_all_kinds(structure, kinds)
        steps = steps_of(*complete, kinds, hidden_size=description.hidden_size, round_to=round_to)
        every = [alike_counts(structure, kinds, each.units) for each in steps]
        return sorted(sum(each.removed for each in counts) / description.parameters for counts in every)
    protected = parameters.protected(description.layers)
    free = [each for each in layers if each not in protected and removable_parameters(structure, each, kinds)]
    ends = [steps_of(structure, layer, kinds, hidden_size=None, round_to=round_to)[-1] for layer in free]
    return [0.0, sum(each.removed for each in ends) / description.parameters]


def offered_units(
    description: ModelDescription, parameters: WidthOptions, *, layout: Layout, round_to: int
) -> dict[KindName, list[int]] | None:
    """Return the numbers of units of each kind that a layer may keep where costs decide, descending.

    Of the finest units there are about `_OFFERED_WIDTHS`, evenly spaced; all layers' own numbers are among them. None
    where the method cannot choose by costs. Raises InvalidParameters where the layout does not allow the request.
    """
    if not parameters.chooses_by_cost:
        return None
    structure = require_structure(description)
    check_offered(description, parameters)
    check_width(description, structure, parameters, layout)
    hidden_size = description.hidden_size if layout == "uniform" else None
    offered: dict[KindName, list[int]] = {}
    for kind in removed_kinds(attention_within(structure, parameters, layout)):
        numbers: set[int] = set()
        for layer, shape in enumerate(structure.layers):
            if kind.is_fine:
                step = parameters.round_to or round_to
                step *= max(1, kind.units(shape) // (step * _OFFERED_WIDTHS))
                numbers.update(aligned_widths(kind.units(shape), step))
            else:
                options = coarse_options(structure, layer, [kind], hidden_size)
                numbers.update(each.units[kind.name] for each in options)
        offered[kind.name] = sorted(numbers - {0}, reverse=True)
    return offered
