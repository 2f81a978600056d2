"""Plan of a removal: the counts that meet a request, decided in one place."""

from dataclasses import dataclass

from core.engine.architectures.width_reduction import WidthReduction


@dataclass(frozen=True)
class RemovalPlan:
    """Counts that a kind of removal decided: a `width_reduction`, the layers that go, or the experts that stay."""

    width_reduction: WidthReduction | None = None
    removed_layers: int = 0
    experts_left: int | None = None
