"""Plan of a removal: the counts that meet a request, decided in one place."""

from dataclasses import dataclass

from core.engine.architectures.width_reduction import WidthReduction


@dataclass(frozen=True)
class RemovalPlan:
    """Counts of what goes: units by a `width_reduction`, whole layers, or all but so many experts of each layer."""

    width_reduction: WidthReduction | None = None
    removed_layers: int = 0
    experts_left: int | None = None
