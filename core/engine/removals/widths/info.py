"""Widths: the heads and channels that each layer keeps."""

from collections.abc import Mapping, Sequence

from core.engine.architectures.block_shape import BlockShape
from core.engine.architectures.unit_kind import KindName
from core.engine.architectures.width_reduction import WidthReduction
from core.engine.cuts.cut import Cut
from core.engine.cuts.losses import Losses
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.removal import Removal
from core.engine.options.base import MethodParameters
from core.engine.removals.widths.counts import may_lose_heads, plan_width_reduction, reachable_widths, rounding_cost
from core.engine.removals.widths.options import WidthOptions
from secateur_wire.errors import InvalidSparsity


class WidthRemoval(Removal):
    def check(self, cut: Cut) -> RemovalPlan:
        return RemovalPlan(width_reduction=_reduction(cut))

    def reachable(self, cut: Cut) -> Sequence[float]:
        return reachable_widths(cut.language_model, _options(cut), layout=cut.layout, round_to=cut.round_to)

    def least_removed(self, cut: Cut) -> int:
        wanted = round(cut.sparsity * cut.description.parameters)
        block = BlockShape.of(cut.language_model)
        channel = sum(block.hidden_size * len(group.sizes) for group in block.groups[-2:])
        step = cut.language_model.layers * channel * (_options(cut).round_to or cut.round_to)
        return wanted if cut.at_least else wanted - step // 2

    def kept_shares(self, cut: Cut) -> Mapping[KindName, float]:
        """Return the largest share of its units of each kind that a layer keeps, where it is known beforehand.

        It is unknown where the units of all layers compete, for query heads (their keys stay), and where a device's
        alignment leaves no such counts; the worker then reports that.
        """
        structure = cut.language_model.structure
        if structure is None or not cut.sparsity or _options(cut).ranks_layers(cut.layout):
            return {}
        try:
            plan = _reduction(cut)
        except InvalidSparsity:
            return {}
        splits = (plan, *plan.others)
        kinds = {kind.name: kind for split in splits for kind in split.kinds if split.attention != "query_heads"}
        return {
            name: max(
                (
                    counts.units.get(name, kind.units(shape)) / kind.units(shape)
                    for split in splits
                    for counts, shape in zip(split.counts or (), structure.layers, strict=True)
                    if kind.units(shape)
                ),
                default=1.0,
            )
            for name, kind in kinds.items()
        }

    def losses(self, cut: Cut) -> Losses:
        options = _options(cut)
        return Losses(
            heads=may_lose_heads(cut.language_model, options),
            biases=options.leaves_biases,
            different_layers=cut.layout == "per_layer",
        )

    def alignment(self, options: MethodParameters) -> int | None:
        assert isinstance(options, WidthOptions)
        return options.round_to

    def compares_splits(self, options: MethodParameters) -> bool:
        assert isinstance(options, WidthOptions)
        return options.attention == "auto"

    def rounding_cost(self, cut: Cut) -> float:
        return rounding_cost(cut.language_model, _options(cut), cut.sparsity, layout=cut.layout, at_least=cut.at_least)


def _options(cut: Cut) -> WidthOptions:
    assert isinstance(cut.options, WidthOptions)
    return cut.options


def _reduction(cut: Cut) -> WidthReduction:
    return plan_width_reduction(
        cut.language_model,
        _options(cut),
        cut.sparsity,
        layout=cut.layout,
        round_to=cut.round_to,
        at_least=cut.at_least,
        is_timed=cut.is_timed,
    )


INFO = WidthRemoval("widths", 20, narrows=True)
