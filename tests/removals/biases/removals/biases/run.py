"""Removal of biases: nothing is chosen, and each block stays as it is but for them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from core.engine.architectures.description import require_structure
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.models.folder import ModelFolder
from core.engine.pruning.blocks.language_pass import UnitRemovalPass, UnitRemovalPlan
from core.engine.pruning.results import UnitRow
from core.engine.pruning.units.removal import KeptLayerUnits, UnitCounts, UnitSet
from core.engine.removals.biases.info import BiasPlan
from core.engine.removals.unit_run import UnitRun


@dataclass(frozen=True)
class BiasRow:
    """A layer in the kind's section of the report, and the share of its biases that went."""

    layer: int
    share: float


class BiasPass(UnitRemovalPass):
    """The pass that leaves biases out."""

    def pruned_config(self, counts: UnitCounts) -> dict[str, Any]:
        return {**self.folder.raw_config, **dict.fromkeys(self._plan.settings, False)}

    def remove(
        self, place: int, tensors: Mapping[str, Tensor], unit_sets: Sequence[UnitSet], kept: KeptLayerUnits
    ) -> dict[str, Tensor]:
        parts = [part for part in self.folder.family.sublayers if part.bias in self._plan.settings]
        gone = {f"{name}.bias" for part in parts for group in part.groups for name in group}
        return {name: tensor for name, tensor in tensors.items() if name not in gone}

    def rows_of(self, index: int, counts: UnitCounts, costs: Mapping[str, float]) -> Iterable[UnitRow]:
        before, removed = self._plan.before, self._plan.removed
        yield UnitRow(self.streamed.block_prefix(index), index, "biases", before, before - removed, removed)

    @property
    def sections(self) -> Mapping[str, Sequence[BiasRow]]:
        share = self._plan.removed / self._plan.before
        return {"biases": [BiasRow(layer, share) for layer in range(self.folder.description.layers)]}

    @property
    def _plan(self) -> BiasPlan:
        assert isinstance(self.plan.removal, BiasPlan)
        return self.plan.removal


class BiasRun(UnitRun):
    """Run of the removal of biases."""

    pass_type = BiasPass

    def remaining_counts(self, folder: ModelFolder, plan: UnitRemovalPlan) -> dict[int, LayerCounts]:
        layers = require_structure(folder.description).layers
        return {layer: LayerCounts.of_all(shape, plan.kinds) for layer, shape in enumerate(layers)}
