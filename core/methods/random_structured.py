"""Random structured pruning, the baseline (Mittal 2018, arXiv:1801.10447): all heads or channels are equally likely."""

import torch

from core.engine.options.axes import MethodParameters
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts


class RandomStructured(UnitMethod):
    """Score from U[0, 1), seeded by the job's seed."""

    weight_reads = 0

    def __init__(self, parameters: MethodParameters) -> None:
        self.seed = parameters.seed

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        generator = torch.Generator().manual_seed(self.seed)
        return context.plan_of(
            context.keep_highest(
                [
                    {each.kind: torch.rand(each.units, generator=generator) for each in context.unit_sets(layer)}
                    for layer in range(context.layers)
                ]
            )
        )
