"""What a structured method looks at while it chooses: the model, its groups, the calibration tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.catalogue.structure import AttentionMode, Counts, ModelStructure
from core.errors import NotFiniteWeights
from core.models.folder import ModelFolder
from core.models.skeleton import Skeleton
from core.pruning.masks import lowest
from core.pruning.shelf import Shelf
from core.pruning.streams import ActivationBudget
from core.pruning.structure import Cut, Groups, Kind, LayerCut, layer_groups

Scores = Sequence[Mapping[Kind, Tensor]]
"""For each decoder layer the score of each of its groups, by kind: [units], the highest are kept."""


@dataclass(frozen=True)
class Scene:
    """`skeleton` is of the dense model, its blocks empty; `calibration` token ids [sequences, time]; `scratch` a folder
    for the activations that do not fit in `budget`.
    """

    folder: ModelFolder
    structure: ModelStructure
    skeleton: Skeleton
    attention: AttentionMode
    counts: Counts | None
    removed_layers: int
    calibration: Tensor | None
    forward_dtype: torch.dtype
    micro_batch: int
    budget: ActivationBudget
    scratch: Path
    say: Callable[[str], None]

    @property
    def layers(self) -> int:
        return len(self.structure.layers)

    def shelf(self) -> Shelf:
        return Shelf(self.budget, self.scratch)

    def groups(self, layer: int) -> list[Groups]:
        return layer_groups(self.folder.family, self.structure, layer, self.attention)

    def units_at(self, share: float) -> dict[Kind, int]:
        """How many groups of each kind every layer keeps once `share` of those that are to go has gone: all of them at
        0, as many as the counts say at 1.
        """
        assert self.counts is not None
        whole, step = self.structure.layers[0], 1
        heads = (whole.kv_heads, self.counts.kv_heads)
        if self.attention == "query_heads":
            heads, step = (whole.heads, self.counts.heads), whole.kv_heads
        return {
            "heads": heads[0] - step * round(share * (heads[0] - heads[1]) / step),
            "channels": whole.channels - round(share * (whole.channels - self.counts.channels)),
        }

    def keep_highest(self, scores: Scores, units: Mapping[Kind, int] | None = None) -> Cut:
        """Of every layer the groups of highest score, `units` of each kind or as many as the counts say; ties keep the
        later ones.
        """
        keep = units or self.units_at(1)
        return Cut(
            attention=self.attention, layers={n: self._layer_cut(n, each, keep) for n, each in enumerate(scores)}
        )

    def without_layers(self, removed: Sequence[int]) -> Cut:
        """Everything but these layers."""
        kept = [layer for layer in range(self.layers) if layer not in removed]
        return Cut(attention=self.attention, layers={layer: LayerCut() for layer in kept})

    def _layer_cut(self, layer: int, scores: Mapping[Kind, Tensor], keep: Mapping[Kind, int]) -> LayerCut:
        cut = LayerCut()
        for kind, score_U in scores.items():
            if not torch.isfinite(score_U).all():
                raise NotFiniteWeights(f"layer {layer}: the importance of its {kind} is not finite", param="model")
            if keep[kind] == len(score_U):
                continue
            if kind == "channels":
                cut.channels = _highest(score_U, keep[kind])
            else:
                groups = self.structure.layers[layer].kv_heads if self.attention == "query_heads" else 1
                size = len(score_U) // groups
                cut.heads = [
                    group * size + head
                    for group, part in enumerate(score_U.split(size))
                    for head in _highest(part, keep[kind] // groups)
                ]
        return cut


def _highest(score_U: Tensor, keep: int) -> list[int]:
    found: list[int] = (~lowest(score_U, len(score_U) - keep)).nonzero().flatten().tolist()
    return found
