"""Plan of a removal: the counts that meet a request, computed in one place."""

from dataclasses import dataclass

from core.engine.architectures.unit_counts import WidthReduction
from core.engine.architectures.units import UnitKind, removed_kinds


@dataclass(frozen=True)
class RemovalPlan:
    """Counts that a kind of removal decided. A kind with other counts than a width reduction derives its own plan.

    `width_reduction` is None where no layer gets narrower.
    """

    width_reduction: WidthReduction | None = None

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        """Return the kinds of units within a block that a method chooses among."""
        return removed_kinds("none") if self.width_reduction is None else self.width_reduction.kinds
