"""Whole layers: the number to remove."""

from collections.abc import Sequence

from core.engine.architectures.description import require_structure
from core.engine.cuts.cut import Cut
from core.engine.cuts.losses import Losses
from core.engine.cuts.removal import Removal
from core.engine.removals.layers.counts import LayerPlan, layer_count
from core.engine.removals.layers.options import LayerOptions


class LayerRemoval(Removal):
    """Removal of whole decoder layers."""

    def check(self, cut: Cut) -> LayerPlan:
        count = _count(cut)
        assert isinstance(cut.options, LayerOptions)
        cut.options.check_removed_layers(cut.language_model, count)
        return LayerPlan(removed=count)

    def reachable(self, cut: Cut) -> Sequence[float]:
        structure = require_structure(cut.language_model)
        layers = len(structure.layers)
        return [count * structure.parameters / layers / cut.description.parameters for count in range(layers)]

    def losses(self, cut: Cut) -> Losses:
        return Losses(layers=True, different_layers=cut.layout == "per_layer")


def _count(cut: Cut) -> int:
    description = cut.language_model
    return layer_count(
        require_structure(description),
        parameters=description.parameters,
        ratio=cut.sparsity,
        at_least=cut.at_least,
    )


INFO = LayerRemoval("layers", 30, offer="layers")
