"""Widths: layers get narrower as heads and channels are removed. Their options, checks and counts, without torch."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from core.device_kinds import CPU
from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.heterogeneous import Layout
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
from core.engine.architectures.units import AttentionChoice, AttentionMode, KindName, attention_mode, removed_kinds
from core.engine.cuts import Cut, Losses, Removal, RemovalPlan
from core.engine.options.axes import BudgetOptions, MethodParameters, RefitOptions
from core.engine.recovery.request import Recovery
from secateur_wire.errors import InvalidParameters, InvalidSparsity, UnsupportedArchitecture
from secateur_wire.recovery import Lora

_OFFERED_WIDTHS = 32
"""Approximate number of widths that a layer may have where costs decide."""
_QUICK_TOKENS = 512
"""Most tokens of a training step with `budget: quick`."""


class WidthOptions(MethodParameters, RefitOptions):
    """Options for removable groups, and the multiples to which their counts are rounded.

    `paper_protects` are the numbers of first and last layers, out of 32, that the method's paper does not prune.
    `cuts_behind_norms`: heads are removed after the norm over all heads has run, so no norm may span them.
    `cuts_experts`: in a mixture, the channels of its experts are removed.
    """

    paper_protects: ClassVar[tuple[int, int]] = (0, 0)
    cuts_behind_norms: ClassVar[bool] = False
    cuts_experts: ClassVar[bool] = False

    attention: Annotated[AttentionChoice, BeforeValidator(lambda given: given or "auto")] = Field(
        "auto",
        description="How attention heads are removed. kv_groups: a key/value (KV) head together with the query heads "
        "that share it. query_heads: the same number of query heads from every KV head's group. With both, heads and "
        "channels lose the same share. none: no heads. auto: only channels, as long as a quarter of a layer's "
        "stays, and then as few heads as possible.",
    )
    round_to: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="The number of channels that remain is a multiple of this. Unset: what output.exports stores in "
        "blocks (32 or 256 for quantised GGUF), else 8 on a CPU and 64 on CUDA.",
    )
    protected_first: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="Number of first layers that lose nothing, so that the others lose more; needs output.layout "
        "'per_layer'. Unset: as in the method's paper (LLM-Pruner and its baselines: 4 of 32, scaled with "
        "the depth).",
    )
    protected_last: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="Number of last layers that lose nothing. Unset: as in the method's paper (LLM-Pruner and its "
        "baselines: 2 of 32, scaled with the depth).",
    )

    def protected(self, layers: int) -> frozenset[int]:
        """Return the layers that lose nothing where layers may differ in shape; `layers` is their number."""
        requested = (self.protected_first, self.protected_last)
        first, last = (
            round(share * layers / 32) if own is None else own
            for own, share in zip(requested, self.paper_protects, strict=True)
        )
        return frozenset(layer for layer in range(layers) if layer < first or layer >= layers - last)

    def ranks_layers(self, layout: Layout) -> bool:
        """Return True if the groups of all layers are ranked together in a model of that layout."""
        return False

    @property
    def leaves_biases(self) -> bool:
        """Return True if biases replace the removed units, where the architecture has biases."""
        return False

    def check_dropped_layers(self, description: ModelDescription, ratio: float, free: int) -> None:
        """Raise InvalidParameters where the whole layers to drop, out of `free` ones, exceed `ratio` of the model."""


class RankedWidthOptions(WidthOptions):
    """Parameters of methods that score every group: the scope within which scores are compared."""

    cuts_experts: ClassVar[bool] = True

    scope: Literal["layer", "model"] = Field(
        "layer",
        description="layer: every layer that is not protected loses the same share. model: the heads and channels of "
        "all layers are ranked together, by importance per parameter, divided by the root mean square of their "
        "layer's; needs output.layout 'per_layer'.",
    )

    def ranks_layers(self, layout: Layout) -> bool:
        return self.scope == "model"


class AdapterOptions(WidthOptions, BudgetOptions):
    """Parameters of methods that train LoRA adapters during selection: the training's layers, length and rate."""

    budget: Literal["quick", "standard"] = Field(
        "standard",
        description="standard: 312 steps of 128 sequences, as LoRAPrune is usually run. quick: 48 steps of 512 tokens, "
        "which a CPU does in minutes on a small model.",
    )
    lora: Lora = Field(default_factory=Lora, description="The adapters, on every linear layer of every block.")
    steps: int | None = Field(
        None,
        ge=10,
        le=1_000_000,
        description="Optimiser steps. Unset: 312, which is 20 000 sequences twice; with quick, 48.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Calibration sequences in a step. They are repeated as often as the steps need. Unset: 128; with "
        "quick, as many as make 512 tokens.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW. It falls along a cosine. Unset: 1e-4; with quick, 1e-3.",
    )

    @field_validator("lora")
    @classmethod
    def _everywhere(cls, lora: Lora) -> Lora:
        if lora.targets is not None:
            raise ValueError("targets: heads and channels are scored by adapters on all linear layers, so leave it out")
        return lora

    def training(self, sequence_length: int) -> Recovery:
        """Return the training that is part of the selection, on sequences of `sequence_length` tokens."""
        is_quick = self.budget == "quick"
        batch = max(1, _QUICK_TOKENS // sequence_length) if is_quick else 128
        return Recovery(
            method="lora",
            steps=self.steps or (48 if is_quick else 312),
            batch_size=self.batch_size or batch,
            learning_rate=self.learning_rate or (1e-3 if is_quick else 1e-4),
            sequence_length=sequence_length,
            seed=self.seed,
            lora=self.lora,
        )

    def forwards(self, description: ModelDescription, share: float, calibration: int, window: int) -> int:
        return 0


class WidthRemoval(Removal):
    """Removal of heads and channels from each layer."""

    def check(self, cut: Cut) -> RemovalPlan:
        reduction = plan_width_reduction(
            cut.language_model,
            _options(cut),
            cut.sparsity,
            layout=cut.layout,
            round_to=cut.round_to,
            at_least=cut.at_least,
            costs=cut.costs,
        )
        return RemovalPlan(width_reduction=reduction)

    def reachable(self, cut: Cut) -> Sequence[float]:
        """Return the shares of the model's parameters that can be removed with heads and channels.

        With all layers of one shape, every share is listed, and a job with a listed sparsity removes exactly that
        share. Where the number of heads or layers is still to be measured, it removes the share to within one aligned
        group of channels in every layer.
        """
        description, parameters = cut.language_model, _options(cut)
        structure = require_structure(description)
        kinds = removed_kinds(_attention_within(structure, parameters, cut.layout))
        round_to = parameters.round_to or cut.round_to
        steps_of = channels_first if parameters.attention == "auto" else width_steps
        if cut.layout == "uniform":
            complete = layer_with_all_kinds(structure, kinds)
            steps = steps_of(*complete, kinds, hidden_size=description.hidden_size, round_to=round_to)
            every = [alike_counts(structure, kinds, each.units) for each in steps]
            return sorted(sum(each.removed for each in counts) / description.parameters for counts in every)
        free = {*range(len(structure.layers))} - parameters.protected(description.layers)
        ends = [
            steps_of(structure, layer, kinds, hidden_size=None, round_to=round_to)[-1]
            for layer in free
            if removable_parameters(structure, layer, kinds)
        ]
        return [0.0, sum(each.removed for each in ends) / description.parameters]

    def losses(self, cut: Cut) -> Losses:
        options = _options(cut)
        attention = attention_mode(options.attention, require_structure(cut.language_model))
        return Losses(
            heads=attention != "none", biases=options.leaves_biases, different_layers=cut.layout == "per_layer"
        )


WIDTHS = WidthRemoval("widths", narrows=True)


def _options(cut: Cut) -> WidthOptions:
    assert isinstance(cut.options, WidthOptions)
    return cut.options


def width_divisor(options: MethodParameters) -> int | None:
    """Return the number that divides all remaining widths, from the options; None where the options name none."""
    return options.round_to if isinstance(options, WidthOptions) else None


def rounding_cost(cut: Cut) -> float:
    """Return the largest deviation from the sparsity of a cut, relative to it, that the rounding of widths causes.

    Where the units of all layers are ranked together, it is one step of one layer.
    """
    plan = WIDTHS.check(cut).width_reduction
    assert plan is not None
    wanted = cut.sparsity * cut.description.parameters
    if not wanted:
        return 0.0
    if plan.counts is not None:
        return abs(sum(each.removed for each in plan.counts) - wanted) / wanted
    return plan.round_to * fine_parameters(require_structure(cut.language_model), plan.kinds) / wanted


def offered_units(cut: Cut) -> dict[KindName, list[int]]:
    """Return the numbers of units of each kind that a layer may keep where costs decide, descending.

    Of the finest units there are about `_OFFERED_WIDTHS`, evenly spaced; all layers' own numbers are among them. The
    sparsity and the costs of `cut` are ignored. Raises InvalidParameters where the layout does not allow the request.
    """
    description, parameters = cut.language_model, _options(cut)
    structure = require_structure(description)
    _check_offered(description, parameters)
    _check_width(description, structure, parameters, cut.layout)
    hidden_size = description.hidden_size if cut.layout == "uniform" else None
    offered: dict[KindName, list[int]] = {}
    for kind in removed_kinds(_attention_within(structure, parameters, cut.layout)):
        numbers: set[int] = set()
        for layer, shape in enumerate(structure.layers):
            if kind.is_fine:
                step = parameters.round_to or cut.round_to
                step *= max(1, kind.units(shape) // (step * _OFFERED_WIDTHS))
                numbers.update(aligned_widths(kind.units(shape), step))
            else:
                options = coarse_options(structure, layer, [kind], hidden_size)
                numbers.update(each.units[kind.name] for each in options)
        offered[kind.name] = sorted(numbers - {0}, reverse=True)
    return offered


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
    _check_offered(description, parameters)
    _check_width(description, structure, parameters, layout)
    attention = _attention_within(structure, parameters, layout)
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


def _mode(structure: ModelStructure, counts: Sequence[LayerCounts], attention: AttentionMode) -> AttentionMode:
    """Return the attention mode that gives a model these counts; none where no heads are removed."""
    coarse = [kind for kind in removed_kinds(attention) if not kind.is_fine]
    loses_heads = any(
        each.units[kind.name] < kind.units(shape)
        for each, shape in zip(counts, structure.layers, strict=True)
        for kind in coarse
    )
    return attention if loses_heads else "none"


def _attention_within(structure: ModelStructure, parameters: WidthOptions, layout: Layout) -> AttentionMode:
    """Return the unit of head removal; by default none where only some layers have heads and all must stay alike.

    Removing heads there would cost the layers with heads more than the others.
    """
    attention = attention_mode(parameters.attention, structure)
    is_open = parameters.attention == "auto" and layout == "uniform"
    return "none" if is_open and not structure.is_alike else attention


def _check_offered(description: ModelDescription, parameters: WidthOptions) -> None:
    """Require that the architecture supports the requested removal."""
    family = description.known_as
    if not family.axes("channels"):
        why = family.refused.get("channels", "no channels were found that its config can express")
        raise UnsupportedArchitecture(
            f"{description.architecture} cannot lose channels: {why}; use a method that sets weights to zero",
            param="model",
        )
    if family.experts is not None and not parameters.cuts_experts:
        raise UnsupportedArchitecture(
            f"{description.architecture} is a mixture of experts, and this method does not remove their channels; "
            "use frontier, flap or llm-pruner, or a method that removes whole experts or weights",
            param="model",
        )
    kept = family.refused.get("heads")
    if kept is not None and parameters.attention not in ("auto", "none"):
        raise InvalidParameters(
            f"parameters.attention: {description.architecture} cannot lose heads: {kept}; use 'none' (channels only)",
            param="parameters.attention",
        )


def _check_width(
    description: ModelDescription, structure: ModelStructure, parameters: WidthOptions, layout: Layout
) -> None:
    """Require that the layers can have shapes of that layout."""
    why = description.known_as.refused.get(layout)
    if why is not None:
        name = description.architecture
        raise InvalidParameters(
            f"output.layout: all layers of {name} cannot be made narrower through its config: {why}; use 'per_layer'"
            if layout == "uniform"
            else f"output.layout: layers of {name} cannot have different shapes: {why}; use 'uniform'",
            param="output.layout",
        )
    if layout == "uniform":
        if description.layout == "per_layer" or not structure.is_uniform:
            raise InvalidParameters(
                "output.layout: the layers of this model have different shapes already, so use 'per_layer'",
                param="output.layout",
            )
        needing = {
            "protected_first": bool(parameters.protected_first),
            "protected_last": bool(parameters.protected_last),
            "scope": parameters.ranks_layers(layout),
        }
        for name, is_requested in needing.items():
            if is_requested:
                raise InvalidParameters(
                    f"parameters.{name}: {getattr(parameters, name)!r} gives layers different shapes, which needs "
                    "output.layout 'per_layer'; with 'uniform' every layer gets the same shape",
                    param=f"parameters.{name}",
                )
    elif len(parameters.protected(description.layers)) == description.layers:
        raise InvalidParameters(
            f"parameters.protected_first and protected_last: all {description.layers} layers are protected, so "
            "nothing is left to remove",
            param="parameters.protected_first",
        )
