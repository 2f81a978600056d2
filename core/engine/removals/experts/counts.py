"""Numbers of whole experts that a model can lose."""

import math
from dataclasses import dataclass

from core.engine.architectures.architecture import EXPERTS_KIND, Experts, Routing
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import ROUNDING, LayerCounts
from core.engine.architectures.units import EXPERT_UNITS, UnitKind
from core.engine.cuts.plan import RemovalPlan
from secateur_wire.errors import InvalidSparsity, UnsupportedArchitecture


@dataclass(frozen=True)
class ExpertPlan(RemovalPlan):
    """Plan in which each mixture keeps `left` experts."""

    left: int = 0

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        return (EXPERT_UNITS,)

    def counts(self, structure: ModelStructure) -> dict[int, LayerCounts]:
        return {
            layer: LayerCounts.of(
                structure, layer, self.kinds, {kind.name: min(kind.units(shape), self.left) for kind in self.kinds}
            )
            for layer, shape in enumerate(structure.layers)
        }


def kept_experts(
    description: ModelDescription, structure: ModelStructure, ratio: float, *, at_least: bool = False
) -> int:
    """Return the number of experts each layer keeps so that about `ratio` of a model's parameters goes, or no less.

    Raises UnsupportedArchitecture where the model cannot lose any. Raises InvalidSparsity, with the nearest allowed
    number, where a router could not choose among the experts left.
    """
    experts, routing, before, share = _removable(description, structure)
    exact = ratio / share
    removed = math.ceil(exact - ROUNDING) if at_least else round(exact)
    left = before - removed
    reason = None if left > 0 else "none is not a mixture"
    if ratio > 0 and removed < 1:
        reason = "an expert of each layer is the least that goes"
    reason = reason or routing.refusal(left, experts.top_k)
    if reason is None or not ratio:
        return left
    allowed = [each for each in range(1, before) if routing.refusal(each, experts.top_k) is None]
    message = f"sparsity {ratio:g} leaves {left} of {before} experts a layer, and {reason}"
    if not allowed:
        raise InvalidSparsity(f"{message}: no experts of this model can go", param="sparsity")
    nearest = min(allowed, key=lambda each: (abs(each - left), each))
    raise InvalidSparsity(
        f"{message}; the nearest allowed number is {nearest}, at sparsity {(before - nearest) * share:.6f}",
        param="sparsity",
    )


def expert_sparsities(description: ModelDescription, structure: ModelStructure) -> list[float]:
    """Return the shares of a model's parameters that whole numbers of experts can remove, ascending from 0."""
    experts, routing, before, share = _removable(description, structure)
    allowed = [each for each in range(before - 1, 0, -1) if routing.refusal(each, experts.top_k) is None]
    return [0.0, *((before - left) * share for left in allowed)]


def _removable(description: ModelDescription, structure: ModelStructure) -> tuple[Experts, Routing, int, float]:
    """Return a model's experts, their routing and number, and the parameter share of one expert in every layer."""
    experts = description.known_as.experts
    if experts is None:
        raise UnsupportedArchitecture(f"{description.architecture} has no experts that could go", param="model")
    if experts.routing is None:
        raise UnsupportedArchitecture(
            f"{description.architecture} cannot lose whole experts: {experts.kept_because}", param="model"
        )
    counts = {layer.sizes[EXPERTS_KIND] for layer in structure.layers} - {0}
    if len(counts) != 1:
        raise UnsupportedArchitecture(
            f"{description.architecture} cannot lose whole experts: its layers have different numbers of them "
            f"({sorted(counts)}), but its config has one number for all",
            param="model",
        )
    with_experts = sum(layer.sizes[EXPERTS_KIND] > 0 for layer in structure.layers)
    share = with_experts * structure.facts["expert_parameters"] / description.parameters
    return experts, experts.routing, counts.pop(), share
