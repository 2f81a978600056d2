"""Cuts: a request to remove something, the plan and the sizes that follow, and the base class of a kind of removal.

Exporters and passes read them without knowing the kind. Nothing here loads torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel

from core.device_kinds import CPU
from core.engine.architectures.description import Description, ModelDescription
from core.engine.architectures.heterogeneous import Layout
from core.engine.architectures.unit_counts import CostLimit, LayerCounts, WidthReduction
from core.engine.architectures.units import KindName, UnitKind, removed_kinds
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.options.axes import MethodParameters
from core.engine.options.patterns import Pattern
from secateur_wire.metrics import Sparsity

LAYER: Final = "layer"
"""Kind of a report's row of a removed layer. Rows of other kinds count units of a layer that stays."""
Figure = Literal["parameters", "bytes"]


@dataclass(frozen=True)
class Cut:
    """Model, options, and the share to remove, without the method and its job.

    `sparsity` is a share of the prunable weights where weights become zero, and of the model's parameters otherwise.
    With `at_least` no less is removed; without it the nearest possible share is. Widths are multiples of `round_to`
    where the options leave it open. With `costs` the sparsity is open: what goes loses least within their limit.
    """

    description: Description
    options: MethodParameters
    sparsity: float
    pattern: Pattern
    layout: Layout = "uniform"
    at_least: bool = False
    round_to: int = CPU.round_to
    costs: CostLimit | None = None

    @property
    def language_model(self) -> ModelDescription:
        """Return the language model's description. Only removals of weights and filters also apply to classifiers."""
        return self.description.language_model


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

    def remaining_counts(self, description: ModelDescription) -> dict[int, LayerCounts]:
        """Return the counts of each layer that stays; they do not depend on which layers are removed."""
        assert self.width_reduction is not None and self.width_reduction.counts is not None
        return dict(enumerate(self.width_reduction.counts))


@dataclass(frozen=True)
class Losses:
    """Parts that a job takes out of a language model. With `biases` it leaves biases in their place.

    `different_layers` is True if the layers that are left may differ in shape. Exporters check if a format allows them.
    """

    heads: bool = False
    layers: bool = False
    biases: bool = False
    different_layers: bool = False


@dataclass(frozen=True)
class SizeScale:
    """Size of the artifact as a linear function of the sparsity s: `start − slope·s`.

    `margin` is added to a sparsity that counts weights, since every row may round it down by half a weight.
    """

    start: float
    slope: float
    margin: float = 0.0

    def sparsity_of(self, figure: float) -> float:
        return (self.start - figure) / self.slope + self.margin

    def figure_of(self, sparsity: float) -> int:
        return round(self.start - self.slope * sparsity)


@dataclass(frozen=True)
class Removal(ABC):
    """Kind of removal.

    `zeroes`: weights become zero, and all shapes stay. `keeps_zeros`: the saved weights contain zeros, which packing
    leaves out. `narrows`: layers get narrower, uniformly or each by itself. `reads_texts`: what goes follows from the
    texts alone, so that a request needs no sparsity, and no activations are read. `is_fine`: the shares that can be
    removed are too many to list. An architecture's `refused` has this kind under the name `offer`. `latency_refusal` is
    the reason why a latency cannot be the target.
    """

    id: str
    zeroes: bool = False
    keeps_zeros: bool = False
    narrows: bool = False
    reads_texts: bool = False
    is_fine: bool = False
    offer: str | None = None
    latency_refusal: str | None = None

    @abstractmethod
    def check(self, cut: Cut) -> RemovalPlan:
        """Return the counts that meet a request; raises an InvalidRequest that names the nearest possible counts."""

    @abstractmethod
    def reachable(self, cut: Cut) -> Sequence[float]:
        """Return the shares of the model's parameters that can be removed, ascending from 0 to the largest.

        The sparsity of `cut` is ignored. Every share is listed where there are few; else only the two ends are.
        """

    def scale(self, cut: Cut, figure: Figure) -> SizeScale:
        """Return the remaining size as a function of the sparsity. The sparsity of `cut` is ignored."""
        description = cut.description
        if figure == "parameters":
            return SizeScale(description.parameters, description.parameters)
        return SizeScale(description.bytes, description.parameters * WEIGHT_BYTES[description.dtype])

    def nearest(self, cut: Cut, figure: Figure) -> int:
        """Return the reachable figure nearest to the figure of an unreachable sparsity."""
        reachable = self.reachable(cut)
        beyond = [each for each in reachable if each >= cut.sparsity]
        return self.scale(cut, figure).figure_of(beyond[0] if beyond else reachable[-1])

    def losses(self, cut: Cut) -> Losses:
        """Return the parts that a language model loses. Exporters check them."""
        return Losses(different_layers=cut.layout == "per_layer")

    def outcome(self, share: Sparsity, layers: Sequence[Mapping[str, Any]], pattern: str | None) -> str:
        """Return the removed parts in words, for the model card, from the report's `layers` and the `pattern`."""
        counted = _counted_units(layers)
        shares = f"{share.model:.2%} of all parameters were removed, {share.prunable:.2%} of those of its layers"
        return f"{shares}: {counted}." if counted else f"{shares}."


def unit_rows(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of a report's layers that count units or entire layers before and after."""
    return [row for row in layers if "before" in row]


def removed_layers(layers: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the removed layers of a report, by their numbers in the source model."""
    return [row["layer"] for row in unit_rows(layers) if row["kind"] == LAYER]


def _counted_units(layers: Sequence[Mapping[str, Any]]) -> str:
    """Return in words how many units of each kind, and how many layers, were removed; empty where none was."""
    counts: dict[str, tuple[int, int]] = {}
    for row in unit_rows(layers):
        removed, all_ = counts.get(row["kind"], (0, 0))
        counts[row["kind"]] = removed + row["before"] - row["after"], all_ + row["before"]
    return ", ".join(
        f"{removed:,} layer{'s' if removed > 1 else ''}" if kind == LAYER else f"{removed:,} of {all_:,} {kind}"
        for kind, (removed, all_) in counts.items()
        if removed
    )


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
