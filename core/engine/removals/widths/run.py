"""Removal of heads and channels. It first chooses the split between them where the request leaves it open."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.engine.architectures.unit_counts import LayerCounts
from core.engine.cuts.plan import RemovalPlan
from core.engine.models.folder import ModelFolder
from core.engine.pruning.blocks.language_pass import UnitRemovalPass
from core.engine.pruning.blocks.plan import UnitRemovalPlan
from core.engine.pruning.blocks.split_choice import WEIGHT_READS, choose_split
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.removal import KeptUnits, UnitCounts
from core.engine.removals.unit_run import UnitRun


class WidthPass(UnitRemovalPass):
    """Pass that makes layers narrower."""

    fits_experts = True

    def __init__(self, folder: ModelFolder, plan: UnitRemovalPlan, **setting: Any) -> None:
        super().__init__(folder, plan, **setting)
        assert plan.width_reduction is not None
        compares = self.calibration_tokens is not None and plan.width_reduction.others
        self.plan = replace(plan, split_reads=WEIGHT_READS if compares else 0)
        self._split_notes: list[str] = []

    def choose(self, context: UnitSelectionContext) -> KeptUnits | UnitCounts:
        reduction, self._split_notes = choose_split(context)
        for line in self._split_notes:
            self.progress.log(line)
        removal = RemovalPlan(reduction)
        self.plan = replace(self.plan, removal=removal)
        kept = super().choose(replace(context, removal=removal))
        self.notes += self._split_notes
        return kept

    @property
    def choice_state(self) -> Mapping[str, Any]:
        return {"attention": self.plan.attention, "split_notes": self._split_notes}

    def restore_choice(self, state: Mapping[str, Any]) -> None:
        reduction = self.plan.width_reduction
        assert reduction is not None
        self.plan = replace(self.plan, removal=RemovalPlan(replace(reduction, attention=state["attention"])))
        self.notes += state["split_notes"]


class WidthRun(UnitRun):
    pass_type = WidthPass

    def remaining_counts(self, folder: ModelFolder, plan: UnitRemovalPlan) -> dict[int, LayerCounts]:
        assert plan.width_reduction is not None and plan.width_reduction.counts is not None
        return dict(enumerate(plan.width_reduction.counts))
