"""Channels of the FFN: their rows in the layers that produce them, and their column in the layer that reads them.

In a mixture, channels are those of each expert: a layer has `expert_sets` sets of channels in the stacks of its
experts, and `linear_sets` in the linear layers beside the experts whose width follows the same setting. Facts of the
model: `channel_parameters` counts the parameters of one channel in linear layers, `expert_channel_parameters` in the
stacks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.engine.architectures.architecture import CHANNELS_KIND, Architecture
from core.engine.architectures.experts import ExpertChannels, Experts
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_kind import (
    AttentionMode,
    Block,
    KindFacts,
    UnitKind,
    axis_parameters,
    axis_tensors,
    features,
)
from secateur_wire.errors import UnusableModel


class Channels(UnitKind):
    """Channel of the FFN, or one channel of every expert."""

    name = CHANNELS_KIND
    rank = 20
    is_fine = True

    def is_removed(self, attention: AttentionMode) -> bool:
        return True

    def read(self, family: Architecture, blocks: Sequence[Block], configs: Sequence[Mapping[str, Any]]) -> KindFacts:
        axes = family.axes(self.name)
        if axes and family.experts is not None and family.experts.channels is not None:
            return _of_experts(family, family.experts, family.experts.channels, blocks)
        channels = [
            features(family, block, axes[-1]) if axes and f"{axes[-1].module}.weight" in block else 0
            for block in blocks
        ]
        first = next((layer for layer, number in enumerate(channels) if number), 0)
        return KindFacts(
            {"channel_parameters": axis_parameters(family, blocks[first], axes, {"channel": 1})},
            [{"channels": number} for number in channels],
        )

    def settings(self, family: Architecture) -> Mapping[str, str]:
        return {"channels": family.width_key}

    def values(self, family: Architecture, sizes: Mapping[str, int]) -> dict[str, int]:
        return {family.width_key: family.width_factor * sizes["channels"]}

    def units(self, shape: LayerShape) -> int:
        return shape.sizes["channels"]

    def sets(self, shape: LayerShape) -> int:
        return shape.sizes.get("expert_sets", 0) + shape.sizes.get("linear_sets", 1)

    def parameters(self, structure: ModelStructure, layer: int) -> int:
        sizes, facts = structure.layers[layer].sizes, structure.facts
        in_stacks = sizes.get("expert_sets", 0) * facts.get("expert_channel_parameters", 0)
        return in_stacks + sizes.get("linear_sets", 1) * facts["channel_parameters"]

    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        return {"channel": (1, 0)}

    def sizes(self, shape: LayerShape, units: int) -> dict[str, int]:
        return {"channels": units}

    def fixed_settings(self, family: Architecture, structure: ModelStructure) -> dict[str, int]:
        return dict(family.width_settings)


def _of_experts(family: Architecture, experts: Experts, channels: ExpertChannels, blocks: Sequence[Block]) -> KindFacts:
    """Return the facts of a mixture; raises UnusableModel where its blocks do not have the expected shapes."""
    giving = experts.parameter(experts.giving)
    facts = {"expert_channel_parameters": 0, "channel_parameters": 0}
    sizes = []
    for block in blocks:
        widths: set[int] = set()
        in_stacks = in_linears = 0
        if giving in block:
            in_stacks, *matrix = block[giving].shape
            widths.add(matrix[0 if experts.transposed else 1])
            names = [name for axis in channels.stacks for name in axis_tensors(axis) if name in block]
            of_all = sum(block[name].numel for name in names)
            facts["expert_channel_parameters"] = of_all // (in_stacks * max(widths))
        linear = channels.linear
        if linear is not None and f"{linear.axes[-1].module}.weight" in block:
            in_linears = linear.sets
            widths.add(features(family, block, linear.axes[-1]) // linear.sets)
            facts["channel_parameters"] = axis_parameters(family, block, linear.axes, {"channel": 1})
        if len(widths) > 1:
            raise UnusableModel(f"experts of {sorted(widths)} channels in one block", param="model")
        width = widths.pop() if widths else 0
        sizes.append({"channels": width, "expert_sets": in_stacks, "linear_sets": in_linears})
    return KindFacts({**facts}, sizes)


KINDS: Final = (Channels(),)
