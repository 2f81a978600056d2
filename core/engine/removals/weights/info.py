"""Weights: the number that become zero, and the size that is left."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.cuts.cut import Cut
from core.engine.cuts.plan import RemovalPlan
from core.engine.cuts.removal import Removal
from core.engine.cuts.size import Figure, SizeScale
from core.engine.removals.weights.options import check_masks, prunable_linears, selection_of
from secateur_wire.metrics import Sparsity


class WeightRemoval(Removal):
    """Removal of single weights, which become zero."""

    def check(self, cut: Cut) -> RemovalPlan:
        check_masks(cut.description, selection_of(cut.options), cut.pattern, cut.sparsity)
        return RemovalPlan()

    def reachable(self, cut: Cut) -> Sequence[float]:
        linears = prunable_linears(cut.description, selection_of(cut.options))
        return [0.0, sum(each.numel for each in linears) / cut.description.parameters]

    def scale(self, cut: Cut, figure: Figure) -> SizeScale:
        """Return the scale of nonzero parameters or of bytes, where each prunable weight also takes a bit of a mask."""
        description = cut.description
        linears = prunable_linears(description, selection_of(cut.options))
        prunable = sum(linear.numel for linear in linears)
        margin = 0.5 / min(linear.in_features for linear in linears)
        if figure == "parameters":
            return SizeScale(description.parameters, prunable, margin)
        return SizeScale(description.bytes + prunable / 8, prunable * WEIGHT_BYTES[description.dtype], margin)

    def nearest(self, cut: Cut, figure: Figure) -> int:
        scale = self.scale(cut, figure)  # all sparsities below 1 are reachable
        return math.floor(scale.start - scale.slope * (1 - scale.margin)) + 1

    def is_measurable_alone(self, *, trains: bool) -> bool:
        return not trains

    def outcome(self, share: Sparsity, layers: Sequence[Mapping[str, Any]], pattern: str | None) -> str:
        kind = "" if pattern is None else f" ({pattern})"
        return f"{share.prunable:.2%} of the prunable weights are zero{kind}, {share.model:.2%} of all parameters."


INFO = WeightRemoval("weights", 10, zeroes=True, keeps_zeros=True, offer="weights")
