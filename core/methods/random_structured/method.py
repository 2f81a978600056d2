"""Random structured pruning, the baseline: every head or channel of a layer is equally likely to be removed."""

import torch

from core.engine.options.base import MethodParameters
from core.engine.pruning.protocols.units import StructuredMethod
from core.engine.pruning.units.context import Scene
from core.engine.pruning.units.removal import Cut


class RandomStructured(StructuredMethod):
    """Score U[0, 1), seeded by the job's seed."""

    weight_reads = 0

    def __init__(self, parameters: MethodParameters) -> None:
        self.seed = parameters.seed

    def choose(self, scene: Scene) -> Cut:
        generator = torch.Generator().manual_seed(self.seed)
        return scene.keep_highest(
            [
                {each.kind: torch.rand(each.units, generator=generator) for each in scene.groups(layer)}
                for layer in range(scene.layers)
            ]
        )
