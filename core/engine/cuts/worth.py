"""Worth of a model's parts: the quality that is lost without them, as one table for all targets of a model and text."""

from pydantic import BaseModel

from core.engine.architectures.units import KindName


class VariantWorth(BaseModel, frozen=True):
    """Variant of a layer: the units of each kind that it keeps, and what that costs in nats per token."""

    units: dict[KindName, int]
    nats: float


class RunWorth(BaseModel, frozen=True):
    """Run of layers, `first` to `end` − 1, and what it costs in nats per token to drop them together."""

    first: int
    end: int
    nats: float


class WorthTable(BaseModel, frozen=True):
    """Quality lost by each variant of each layer, the complete layer first, and by each run of layers that can go.

    Costs are to second order in the outputs that are missing. They add up only approximately, as the layers behind read
    what is left and are fitted to it. Those of long runs are far too low: compare shapes with as many dropped layers.
    """

    layers: list[list[VariantWorth]]
    runs: list[RunWorth] = []
