"""Plan of a pass that removes units, with every choice resolved."""

from dataclasses import dataclass, field

from core.engine.architectures.heterogeneous import Layout
from core.engine.architectures.unit_kind import AttentionMode, UnitKind
from core.engine.architectures.width_reduction import WidthReduction
from core.engine.cuts import RemovalPlan
from core.engine.options.compensation import Refit
from core.engine.pruning.plan import PruningPlan
from core.engine.pruning.protocols.units import BlockUnitMethod, UnitMethod
from secateur_wire.base import JsonObject


@dataclass(frozen=True, kw_only=True)
class UnitRemovalPlan(PruningPlan):
    """Choices of one pass that removes units; `removal` has the counts that the kind of removal decided.

    `sparsity` is a share of all parameters of the model; with `at_least` no less is removed.
    """

    layout: Layout
    at_least: bool
    removal: RemovalPlan
    method: UnitMethod | BlockUnitMethod = field(compare=False)

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        return self.removal.kinds

    @property
    def width_reduction(self) -> WidthReduction | None:
        """Width reduction of the layers; None where no layer gets narrower."""
        return self.removal.width_reduction

    @property
    def compensation(self) -> Refit | None:
        """Options of the refit of the remaining weights; None: no refit."""
        return self.parameters.requested_compensation

    @property
    def attention(self) -> AttentionMode:
        """Unit by which attention heads are removed."""
        return "none" if self.width_reduction is None else self.width_reduction.attention

    @property
    def weight_reads(self) -> int:
        """Number of times the model's weights are read, for the choice and for the removal."""
        return 1 + self.method.weight_reads

    @property
    def choices(self) -> JsonObject:
        reduction = self.width_reduction
        costs = None if reduction is None or reduction.costs is None else reduction.costs.model_dump(mode="json")
        return {"at_least": self.at_least, "layout": self.layout} | ({} if costs is None else {"costs": costs})

    @property
    def settings(self) -> JsonObject:
        compensation = self.compensation
        return {
            "attention": self.attention,
            "layout": self.layout,
            "protected_layers": [] if self.width_reduction is None else [*sorted(self.width_reduction.protected)],
            "compensation": None if compensation is None else compensation.model_dump(mode="json"),
        }
