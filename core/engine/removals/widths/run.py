"""Removal of heads and channels."""

from core.engine.architectures.unit_counts import LayerCounts
from core.engine.models.folder import ModelFolder
from core.engine.pruning.blocks.language_pass import UnitRemovalPass, UnitRemovalPlan
from core.engine.removals.unit_run import UnitRun


class WidthPass(UnitRemovalPass):
    """Pass that makes layers narrower."""

    fits_experts = True


class WidthRun(UnitRun):
    pass_type = WidthPass

    def remaining_counts(self, folder: ModelFolder, plan: UnitRemovalPlan) -> dict[int, LayerCounts]:
        assert plan.width_reduction is not None and plan.width_reduction.counts is not None
        return dict(enumerate(plan.width_reduction.counts))
