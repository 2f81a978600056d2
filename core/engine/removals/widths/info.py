"""Widths: the heads and channels that each layer keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.engine.architectures.block_shape import BlockShape
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.unit_kind import KindName
from core.engine.architectures.width_reduction import WidthReduction
from core.engine.cuts.cut import Cut
from core.engine.cuts.losses import Losses
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.removal import Removal, nearest_share
from core.engine.options.base import MethodParameters
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

    def least_removed(self, cut: Cut) -> int:
        wanted = round(cut.sparsity * cut.description.parameters)
        block = BlockShape.of(cut.language_model)
        channel = sum(block.hidden_size * len(group.sizes) for group in block.groups[-2:])
        step = cut.language_model.layers * channel * (_options(cut).round_to or cut.round_to)
        return wanted if cut.at_least else wanted - step // 2

    def fewest_layers(self, cut: Cut) -> int:
        return _options(cut).fewest_layers(cut.language_model, cut.sparsity)

    def on_fewer_layers(self, cut: Cut, reduced: ModelDescription) -> Sequence[Cut]:
        """Return the cut of a model whose first layer loses nothing if any layer of the whole model does not."""
        options, layers, share = _options(cut), cut.language_model.layers, 1.0
        if reduced.layers < layers:
            protected = frozenset[int]() if cut.layout == "uniform" else options.protected(layers)
            options = options.on_fewer_layers(layers, reduced.layers, is_protecting=bool(protected))
            share = (reduced.layers - bool(protected)) / (layers - len(protected))
        fewer = replace(cut, description=reduced, options=options)
        cuts = [self._near(fewer, share * cut.sparsity * cut.description.parameters)]
        most, sparsity = options.dropping_most(reduced, cuts[0].sparsity)
        if most != options:  # the layers that stay are the wider: they lose one step
            step = self.reachable(cuts[0])[1] if cut.layout == "uniform" else cuts[0].sparsity
            cuts.append(replace(cuts[0], options=most, sparsity=min(sparsity + step, cuts[0].sparsity)))
        return cuts

    def _near(self, cut: Cut, removed: float) -> Cut:
        """Return a cut by which about so many parameters go."""
        wanted, is_listed = removed / cut.description.parameters, cut.layout == "uniform"
        return replace(cut, sparsity=nearest_share(self.reachable(cut), wanted, is_listed=is_listed))

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
