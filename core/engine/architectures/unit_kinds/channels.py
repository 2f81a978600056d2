"""Channels of the FFN: their rows in the layers that produce them, and their column in the layer that reads them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_kind import (
    AttentionMode,
    Block,
    KindFacts,
    UnitKind,
    axis_parameters,
    features,
)


class Channels(UnitKind):
    """One channel of the FFN."""

    name = "channels"
    rank = 20
    is_fine = True

    def is_removed(self, attention: AttentionMode) -> bool:
        return True

    def read(self, family: Architecture, blocks: Sequence[Block], configs: Sequence[Mapping[str, Any]]) -> KindFacts:
        axes = family.axes(self.name)
        channels = [
            features(family, block, axes[-1]) if axes and f"{axes[-1].module}.weight" in block else 0
            for block in blocks
        ]
        first = next((layer for layer, number in enumerate(channels) if number), 0)
        return KindFacts(
            {"channel_parameters": axis_parameters(family, blocks[first], self.name, {"channel": 1})},
            [{"channels": number} for number in channels],
        )

    def settings(self, family: Architecture) -> Mapping[str, str]:
        return {"channels": family.width_key}

    def values(self, family: Architecture, sizes: Mapping[str, int]) -> dict[str, int]:
        return {family.width_key: family.width_factor * sizes["channels"]}

    def units(self, shape: LayerShape) -> int:
        return shape.sizes["channels"]

    def parameters(self, structure: ModelStructure, layer: int) -> int:
        return structure.facts["channel_parameters"]

    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        return {"channel": (1, 0)}

    def sizes(self, shape: LayerShape, units: int) -> dict[str, int]:
        return {"channels": units}

    def fixed_settings(self, family: Architecture, structure: ModelStructure) -> dict[str, int]:
        return dict(family.width_settings)


KINDS: Final = (Channels(),)
