"""Removal: the protocol of a kind of removal, such as that of weights or of whole layers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.engine.architectures.unit_kind import KindName
from core.engine.cuts.cut import Cut
from core.engine.cuts.losses import Losses
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.report import SharePanel, counted_units
from core.engine.cuts.size import Figure, SizeScale, scale_of_parameters
from core.engine.options.base import MethodParameters
from secateur_wire.metrics import Sparsity


@dataclass(frozen=True)
class Removal(ABC):
    """Kind of removal. Lists go by `rank`, lowest first.

    `zeroes`: weights become zero, and all shapes stay. `keeps_zeros`: zeros are left, which packing leaves out.
    `narrows`: layers get narrower, uniformly or each by itself.
    `offer` is the word by which an architecture says why it cannot lose this kind.
    """

    id: str
    rank: int
    zeroes: bool = False
    keeps_zeros: bool = False
    narrows: bool = False
    offer: str | None = None

    @abstractmethod
    def check(self, cut: Cut) -> RemovalPlan:
        """Return the counts that meet a request; raises the InvalidRequest kind that names the nearest there are."""

    @abstractmethod
    def reachable(self, cut: Cut) -> Sequence[float]:
        """Return the shares of the model's parameters that can go, ascending from 0 to the largest.

        The sparsity of `cut` is not looked at. Every share is listed where there are few; else the two ends are.
        """

    def steps(self, cut: Cut) -> Sequence[float]:
        """Return all shares that can go, where they are few; none where `reachable` has the two ends alone."""
        return self.reachable(cut) if cut.layout == "uniform" else ()

    def scale(self, cut: Cut, figure: Figure) -> SizeScale:
        """Return what is left as a function of the sparsity. The sparsity of `cut` is not looked at."""
        return scale_of_parameters(cut.description, figure)

    def nearest(self, cut: Cut, figure: Figure) -> int:
        """Return the figure that can be reached and is nearest to that of a sparsity out of reach."""
        scale, reachable = self.scale(cut, figure), self.reachable(cut)
        beyond = [each for each in reachable if each >= cut.sparsity]
        return round(scale.start - scale.slope * (beyond[0] if beyond else reachable[-1]))

    def least_removed(self, cut: Cut) -> int:
        """Return the fewest parameters that go, whatever rounding leaves; 0 where all of them stay, as zeros."""
        return 0

    def kept_shares(self, cut: Cut) -> Mapping[KindName, float]:
        """Return the largest share that a layer keeps of its units of each kind, where it is known beforehand."""
        return {}

    def losses(self, cut: Cut) -> Losses:
        """Return the parts that a language model loses, for what its files can hold."""
        return Losses(unlike_layers=cut.layout == "per_layer")

    def latency_refusal(self) -> str | None:
        """Return why no latency can be aimed at; None where it can."""
        return None

    def alignment(self, options: MethodParameters) -> int | None:
        """Return the number that divides all widths that stay, as the options ask; None where they name none."""
        return None

    def compares_splits(self, options: MethodParameters) -> bool:
        """Return whether calibration text decides how what goes is split between attention and FFN."""
        return False

    def rounding_cost(self, cut: Cut) -> float:
        """Return by how much what is removed may differ from what was asked for, relative to that."""
        return 0.0

    def is_measurable_alone(self, *, trains: bool) -> bool:
        """Return whether one layer alone can be pruned at any rate, by a method that `trains` or not."""
        return False

    def outcome(self, share: Sparsity, layers: Sequence[Mapping[str, Any]], pattern: str | None) -> str:
        """Return what went, as the model card says it; `layers` are the report's rows, `pattern` what was asked for."""
        counted = counted_units(layers)
        shares = f"{share.model:.2%} of all parameters were removed, {share.prunable:.2%} of those of its layers"
        return f"{shares}: {counted}." if counted else f"{shares}."

    def panels(self, sections: Mapping[str, Any]) -> Sequence[SharePanel]:
        """Return the panels of the picture of the layers that show sections of the report that the kind added."""
        return ()
