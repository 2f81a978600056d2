"""Removal of whole experts: chosen block by block during the pass; the report lists those that stay."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.engine.architectures.architecture import EXPERTS_KIND
from core.engine.architectures.description import require_structure
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.models.folder import ModelFolder
from core.engine.pruning.blocks.language_pass import UnitRemovalPass, UnitRemovalPlan
from core.engine.pruning.compensation.expert_refit import ExpertRefit, FittedRouting
from core.engine.pruning.compensation.unit_refit import UnitRefit
from core.engine.pruning.units.method import PrunedBlock
from core.engine.removals.experts.counts import ExpertPlan
from core.engine.removals.experts.report import SECTION
from core.engine.removals.unit_run import UnitRun


@dataclass(frozen=True)
class KeptExpertsRow:
    """Experts that one decoder layer keeps, in the report: their numbers, the scores of all experts, and the routing.

    `kept` are numbers of the source model. There are no scores where the choice was random, and no routing where
    nothing was fitted. `routing` has the tokens of the experts that are left, in their order.
    """

    name: str
    layer: int
    kept: tuple[int, ...]
    scores: tuple[float, ...]
    routing: FittedRouting | None = None

    @classmethod
    def saved(cls, row: Mapping[str, Any]) -> "KeptExpertsRow":
        """Return a row from its JSON."""
        routing = row["routing"]
        if routing is not None:
            routing = FittedRouting(
                tuple(routing["tokens"]), tuple(routing["tokens_left"]), routing["error"], routing["refitted"]
            )
        return cls(row["name"], row["layer"], tuple(row["kept"]), tuple(row["scores"]), routing)


class ExpertPass(UnitRemovalPass):
    fits_experts = True

    def __init__(self, folder: ModelFolder, plan: UnitRemovalPlan, **setting: Any) -> None:
        super().__init__(folder, plan, **setting)
        self._rows: list[KeptExpertsRow] = []

    def record_block(self, index: int, answer: PrunedBlock, refit: UnitRefit | None) -> None:
        kept = answer.units.get(EXPERTS_KIND)
        if kept is not None:
            routing = refit.routing.get(index) if isinstance(refit, ExpertRefit) else None
            scores = tuple(answer.scores.get(EXPERTS_KIND, ()))
            name = self.streamed.block_prefix(index)
            self._rows.append(KeptExpertsRow(name, index, tuple(kept), scores, routing))

    @property
    def block_state(self) -> Mapping[str, Any]:
        return {"experts": [asdict(row) for row in self._rows]}

    def restore_blocks(self, state: Mapping[str, Any]) -> None:
        self._rows = [KeptExpertsRow.saved(row) for row in state["experts"]]

    @property
    def sections(self) -> Mapping[str, Sequence[KeptExpertsRow]]:
        return {SECTION: self._rows}


class ExpertRun(UnitRun):
    pass_type = ExpertPass

    def remaining_counts(self, folder: ModelFolder, plan: UnitRemovalPlan) -> dict[int, LayerCounts]:
        assert isinstance(plan.removal, ExpertPlan)
        return plan.removal.counts(require_structure(folder.description))
