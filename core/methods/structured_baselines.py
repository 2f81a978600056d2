"""Baselines of structured pruning: heads and channels at random, or those whose weights have the smallest norm.

Random: Mittal 2018 (arXiv:1801.10447). Smallest norm: LLM-Pruner's baseline, Ma 2023 (arXiv:2305.11627).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from core.engine.architectures.units import KindName
from core.engine.options.axes import MethodParameters
from core.engine.pruning.units.method import UnitMethod, UnitSelectionContext
from core.engine.pruning.units.removal import UnitCounts
from core.engine.pruning.units.unit_slices import UnitSlice


class RandomStructured(UnitMethod):
    """Score from U[0, 1), seeded by the job's seed (Mittal 2018, arXiv:1801.10447): all units are equally likely."""

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


class L2Structured(UnitMethod):
    """Score Σ w² over all weights that are removed with a group; it orders groups as their L2 norm does.

    Models collapse under it (LLM-Pruner, Ma 2023, arXiv:2305.11627, table 1).
    """

    weight_reads = 1

    def __init__(self, parameters: MethodParameters) -> None:
        pass

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        scores: list[Mapping[KindName, Tensor]] = []
        for layer, tensors in context.streamed.read_blocks(range(context.layers), "comparing the weights of blocks"):

            def squares(unit_slice: UnitSlice, tensors: Mapping[str, Tensor] = tensors) -> Tensor:
                return unit_slice.per_feature(tensors[unit_slice.name].float().square())

            scores.append({each.kind: each.sum(squares, tensors).cpu() for each in context.unit_sets(layer)})
        return context.plan_of(context.keep_highest(scores))
