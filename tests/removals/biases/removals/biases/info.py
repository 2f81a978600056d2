"""Biases: which settings that give layers biases are turned off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from core.engine.architectures.description import ModelDescription, require_structure
from core.engine.architectures.units import UnitKind
from core.engine.cuts.cut import Cut
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.removal import Removal
from core.engine.cuts.report import Points, SharePanel
from secateur_wire.errors import InvalidSparsity, UnsupportedArchitecture
from secateur_wire.metrics import Sparsity


@dataclass(frozen=True)
class BiasPlan(RemovalPlan):
    """Settings that are turned off, and the biases that each layer loses by it, of so many."""

    settings: tuple[str, ...] = ()
    removed: int = 0
    before: int = 0

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        return ()


class BiasRemoval(Removal):
    """Removal of the biases of attention, of the FFN, or of both."""

    def check(self, cut: Cut) -> BiasPlan:
        plans = _plans(cut.language_model)
        share = self._share(cut.language_model)
        enough = [plan for plan in plans if plan.removed * share >= cut.sparsity - 1e-9]
        nearest = min(plans, key=lambda plan: abs(plan.removed * share - cut.sparsity))
        plan = enough[0] if cut.at_least and enough else nearest
        is_beyond = cut.sparsity > (1 if cut.at_least else 2) * plans[-1].removed * share + 1e-9
        if cut.sparsity > 0 and (not plan.removed or is_beyond):
            near = min(plans[1:], key=lambda each: abs(each.removed * share - cut.sparsity))
            raise InvalidSparsity(
                f"sparsity {cut.sparsity:g}: no such share of this model is biases; the nearest is "
                f"{near.removed * share:.6f}, {' and '.join(near.settings)}",
                param="sparsity",
            )
        return plan

    def reachable(self, cut: Cut) -> Sequence[float]:
        return [plan.removed * self._share(cut.language_model) for plan in _plans(cut.language_model)]

    def outcome(self, share: Sparsity, layers: Sequence[Mapping[str, Any]], pattern: str | None) -> str:
        return f"{super().outcome(share, layers, pattern)} No matrix lost a weight."

    def panels(self, sections: Mapping[str, Any]) -> Sequence[SharePanel]:
        points = [(row["layer"], row["share"]) for row in sections.get("biases", ())]
        return [SharePanel("biases gone", [Points("share", "removed", points)])] if points else []

    @staticmethod
    def _share(description: ModelDescription) -> float:
        return description.layers / description.parameters


def _plans(description: ModelDescription) -> list[BiasPlan]:
    """Return what can go, ascending; the biases there are follow from what a layer has beside weights and two norms."""
    layer = require_structure(description).layers[0].parameters
    linears = {each.name.split(".", 3)[3]: each for each in description.linears if each.layer == 0}
    before = layer - sum(each.numel for each in linears.values()) - 2 * description.hidden_size
    of_setting = {
        part.bias: sum(linears[name].out_features for group in part.groups for name in group)
        for part in description.known_as.sublayers
        if part.bias is not None
    }
    subsets = [subset for size in range(len(of_setting) + 1) for subset in combinations(of_setting, size)]
    there = next((each for each in subsets if sum(of_setting[name] for name in each) == before), ())
    if not there:
        raise UnsupportedArchitecture(
            f"{description.architecture}: this model has no biases that could go", param="model"
        )
    plans = [
        BiasPlan(settings=each, removed=sum(of_setting[name] for name in each), before=before)
        for each in subsets
        if set(each) <= set(there)
    ]
    return sorted(plans, key=lambda plan: plan.removed)


INFO = BiasRemoval("biases", 60)
