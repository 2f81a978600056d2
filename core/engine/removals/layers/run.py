"""Removal of whole layers: all are chosen before the pass, and the blocks that stay keep their shapes."""

from core.engine.architectures.description import require_structure
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.models.folder import ModelFolder
from core.engine.pruning.blocks.language_pass import UnitRemovalPlan
from core.engine.removals.layers.counts import LayerPlan, first_removable_layers
from core.engine.removals.unit_run import UnitRun


class LayerRun(UnitRun):
    def remaining_counts(self, folder: ModelFolder, plan: UnitRemovalPlan) -> dict[int, LayerCounts]:
        assert isinstance(plan.removal, LayerPlan)
        layers = require_structure(folder.description).layers
        removed = first_removable_layers(folder.description, range(len(layers))[::-1], plan.removal.removed)
        return {
            layer: LayerCounts.of_all(shape, plan.kinds) for layer, shape in enumerate(layers) if layer not in removed
        }
