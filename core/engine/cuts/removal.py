"""Removal: the protocol of a kind of removal, such as that of weights or of whole layers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.engine.architectures.units import KindName
from core.engine.cuts.cut import Cut
from core.engine.cuts.losses import Losses
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.report import SharePanel, counted_units
from core.engine.cuts.size import Figure, SizeScale, scale_of_parameters
from core.engine.options.axes import MethodParameters
from secateur_wire.metrics import Sparsity


@dataclass(frozen=True)
class Removal(ABC):
    """Kind of removal. Lists are in order of `rank`, lowest first.

    `zeroes`: weights become zero, and all shapes stay. `keeps_zeros`: the saved weights contain zeros, which packing
    leaves out. `narrows`: layers get narrower, uniformly or each by itself. `reads_texts`: what goes follows from the
    texts alone, so that a request needs no sparsity, and no activations are read. An architecture's `refused` has this
    kind under the name `offer`.
    """

    id: str
    rank: int
    zeroes: bool = False
    keeps_zeros: bool = False
    narrows: bool = False
    reads_texts: bool = False
    offer: str | None = None

    @abstractmethod
    def check(self, cut: Cut) -> RemovalPlan:
        """Return the counts that meet a request; raises an InvalidRequest that names the nearest possible counts."""

    @abstractmethod
    def reachable(self, cut: Cut) -> Sequence[float]:
        """Return the shares of the model's parameters that can be removed, ascending from 0 to the largest.

        The sparsity of `cut` is ignored. Every share is listed where there are few; else only the two ends are.
        """

    def sparsity_of(self, cut: Cut) -> float | None:
        """Return the share that the options remove; None where they leave it to the sparsity, or to the texts.

        The sparsity of `cut` is ignored. Raises an InvalidRequest that names the fault.
        """
        return None

    def steps(self, cut: Cut) -> Sequence[float]:
        """Return all removable shares where they are few; none where `reachable` lists only the two ends."""
        return self.reachable(cut) if cut.layout == "uniform" else ()

    def scale(self, cut: Cut, figure: Figure) -> SizeScale:
        """Return the remaining size as a function of the sparsity. The sparsity of `cut` is ignored."""
        return scale_of_parameters(cut.description, figure)

    def nearest(self, cut: Cut, figure: Figure) -> int:
        """Return the reachable figure nearest to the figure of an unreachable sparsity."""
        scale, reachable = self.scale(cut, figure), self.reachable(cut)
        beyond = [each for each in reachable if each >= cut.sparsity]
        return round(scale.start - scale.slope * (beyond[0] if beyond else reachable[-1]))

    def losses(self, cut: Cut) -> Losses:
        """Return the parts that a language model loses. Exporters check them."""
        return Losses(different_layers=cut.layout == "per_layer")

    def latency_refusal(self) -> str | None:
        """Return the reason why a latency cannot be the target; None where it can."""
        return None

    def offered_units(self, cut: Cut) -> Mapping[KindName, Sequence[int]] | None:
        """Return the numbers of units that a layer may keep, by kind, where costs decide; None where they cannot.

        The sparsity and the costs of `cut` are ignored.
        """
        return None

    def alignment(self, options: MethodParameters) -> int | None:
        """Return the number that divides all remaining widths, from the options; None where the options name none."""
        return None

    def rounding_cost(self, cut: Cut) -> float:
        """Return the largest deviation of the removal from the request, relative to the request."""
        return 0.0

    def is_measurable_alone(self, *, trains: bool) -> bool:
        """Return True if one layer alone can be pruned at any rate, by a method that `trains` or not."""
        return False

    def outcome(self, share: Sparsity, layers: Sequence[Mapping[str, Any]], pattern: str | None) -> str:
        """Return the removed parts in words, for the model card, from the report's `layers` and the `pattern`."""
        counted = counted_units(layers)
        shares = f"{share.model:.2%} of all parameters were removed, {share.prunable:.2%} of those of its layers"
        return f"{shares}: {counted}." if counted else f"{shares}."

    def panels(self, sections: Mapping[str, Any]) -> Sequence[SharePanel]:
        """Return the panels of the layers' picture for the sections that this kind adds to the report."""
        return ()
