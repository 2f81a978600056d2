"""Whole layers: the number to remove."""

from collections.abc import Sequence
from dataclasses import replace

from core.engine.architectures.block_shape import BlockShape
from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.cuts.cut import Cut
from core.engine.cuts.losses import Losses
from core.engine.cuts.removal import Removal, nearest_share
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

    def least_removed(self, cut: Cut) -> int:
        description = cut.language_model
        if description.structure is None:  # the layers' sizes were not read: the requested sparsity, less half a layer
            wanted = round(cut.sparsity * description.parameters)
            return wanted if cut.at_least else wanted - BlockShape.of(description).weights // 2
        structure = description.structure
        return _count(cut) * structure.parameters // len(structure.layers)

    def fewest_layers(self, cut: Cut) -> int:
        return 3

    def on_fewer_layers(self, cut: Cut, reduced: ModelDescription) -> Sequence[Cut]:
        fewer = replace(cut, description=reduced)
        share = cut.sparsity * cut.description.parameters / require_structure(cut.language_model).parameters
        wanted = share * require_structure(reduced).parameters / reduced.parameters
        return [replace(fewer, sparsity=nearest_share(self.reachable(fewer), wanted))]

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
