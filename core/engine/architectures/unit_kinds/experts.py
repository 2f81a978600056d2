"""Whole experts of a mixture: their matrices, and their entries in the router's weights and biases.

Facts of a model whose experts can be removed: `expert_parameters` counts the parameters of one expert. A layer has a
number of `experts`, in `expert_groups` that each lose the same number.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.engine.architectures.architecture import EXPERTS_KIND, Architecture
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_kind import AttentionMode, Block, KindFacts, UnitKind


class ExpertUnits(UnitKind):
    name = EXPERTS_KIND
    rank = 30

    def is_removed(self, attention: AttentionMode) -> bool:
        return False

    def read(self, family: Architecture, blocks: Sequence[Block], configs: Sequence[Mapping[str, Any]]) -> KindFacts:
        experts = family.experts
        if experts is None or experts.routing is None:
            return KindFacts({}, [{} for _ in blocks])
        stack, rows, groups = experts.parameter(experts.giving), experts.routing.rows, experts.routing.groups
        counts = [block[stack].shape[0] if stack in block else 0 for block in blocks]
        first = next((layer for layer, number in enumerate(counts) if number), None)
        parameters = 0
        if first is not None:
            parameters = sum(blocks[first][name].numel // counts[first] for name in rows if name in blocks[first])
        return KindFacts(
            {"expert_parameters": parameters},
            [{"experts": number, "expert_groups": groups if number else 0} for number in counts],
        )

    def settings(self, family: Architecture) -> Mapping[str, str]:
        routing = None if family.experts is None else family.experts.routing
        return {} if routing is None else {"experts": routing.count}

    def units(self, shape: LayerShape) -> int:
        return shape.sizes.get("experts", 0)

    def parts(self, shape: LayerShape) -> int:
        return shape.sizes.get("expert_groups", 1)

    def parameters(self, structure: ModelStructure, layer: int) -> int:
        return structure.facts["expert_parameters"]

    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        return {"expert": (1, 0)}

    def sizes(self, shape: LayerShape, units: int) -> dict[str, int]:
        return {"experts": units}


KINDS: Final = (ExpertUnits(),)
