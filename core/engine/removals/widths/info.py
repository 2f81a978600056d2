"""Widths: the heads and channels that each layer keeps."""

from collections.abc import Mapping, Sequence

from core.engine.architectures.unit_counts import WidthReduction
from core.engine.architectures.units import KindName
from core.engine.cuts.cut import Cut
from core.engine.cuts.losses import Losses
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.removal import Removal
from core.engine.options.axes import MethodParameters
from core.engine.removals.widths.counts import (
    may_lose_heads,
    offered_units,
    plan_width_reduction,
    reachable_widths,
    rounding_cost,
)
from core.engine.removals.widths.options import WidthOptions


class WidthRemoval(Removal):
    def check(self, cut: Cut) -> RemovalPlan:
        return RemovalPlan(width_reduction=_reduction(cut))

    def reachable(self, cut: Cut) -> Sequence[float]:
        return reachable_widths(cut.language_model, _options(cut), layout=cut.layout, round_to=cut.round_to)

    def losses(self, cut: Cut) -> Losses:
        options = _options(cut)
        return Losses(
            heads=may_lose_heads(cut.language_model, options),
            biases=options.leaves_biases,
            different_layers=cut.layout == "per_layer",
        )

    def offered_units(self, cut: Cut) -> Mapping[KindName, Sequence[int]] | None:
        return offered_units(cut.language_model, _options(cut), layout=cut.layout, round_to=cut.round_to)

    def alignment(self, options: MethodParameters) -> int | None:
        assert isinstance(options, WidthOptions)
        return options.round_to

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
        costs=cut.costs,
    )


INFO = WidthRemoval("widths", 20, narrows=True)
