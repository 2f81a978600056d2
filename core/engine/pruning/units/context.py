"""Context in which a structured method chooses units: the model, its groups, the calibration tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.engine.architectures.unit_counts import AttentionMode, Kind, LayerCounts, ModelStructure
from core.engine.models.folder import ModelFolder
from core.engine.models.streamed import StreamedModel
from core.engine.options.width_counts import WidthReduction
from core.engine.pruning.layerwise.hidden_state_cache import HiddenStateCache
from core.engine.pruning.layerwise.streams import ActivationBudget
from core.engine.pruning.schedule import counts_at
from core.engine.pruning.units.ranking import ranked_counts
from core.engine.pruning.units.removal import Cut, Groups, LayerCut, highest, layer_groups, require_finite
from core.engine.pruning.units.trained_weights import TrainedWeights

Scores = Sequence[Mapping[Kind, Tensor]]
"""The score of each group of each decoder layer, by kind: [units]; the highest are kept."""


@dataclass(frozen=True)
class Scene:
    """The dense model and everything a structured method may use to choose.

    `skeleton` is of the dense model, its blocks empty; `calibration` token ids [sequences, time]; `scratch` a folder
    for the activations that do not fit in `budget`; `trained` takes the weights a method trains while it chooses.
    `narrowing` is None where entire layers are removed, `removed_layers` of them.
    """

    folder: ModelFolder
    structure: ModelStructure
    skeleton: StreamedModel
    narrowing: WidthReduction | None
    removed_layers: int
    calibration: Tensor | None
    forward_dtype: torch.dtype
    micro_batch: int
    budget: ActivationBudget
    scratch: Path
    trained: TrainedWeights
    say: Callable[[str], None]

    @property
    def layers(self) -> int:
        return len(self.structure.layers)

    @property
    def attention(self) -> AttentionMode:
        """The unit by which attention heads are removed."""
        return "none" if self.narrowing is None else self.narrowing.attention

    @property
    def counts(self) -> Sequence[LayerCounts] | None:
        """The counts each layer keeps, None where they depend on the scores."""
        return None if self.narrowing is None else self.narrowing.counts

    def shelf(self) -> HiddenStateCache:
        return HiddenStateCache(self.budget, self.scratch)

    def groups(self, layer: int) -> list[Groups]:
        return layer_groups(self.folder.family, self.structure, layer, self.attention)

    def counts_at(self, share: float) -> tuple[LayerCounts, ...]:
        """Return the counts of each layer once `share` of the removal is done: all groups at 0, `counts` at 1."""
        assert self.counts is not None
        return tuple(
            counts_at(share, counts, shape) for counts, shape in zip(self.counts, self.structure.layers, strict=True)
        )

    def keep_highest(self, scores: Scores, counts: Sequence[LayerCounts] | None = None) -> Cut:
        """Keep the groups of highest score in every layer, as many as `counts`, or else the scene's, say.

        Ties keep the later ones. Where the groups of all layers compete, the scores determine the counts too. Raises
        NotFiniteWeights where a score is not finite.
        """
        assert self.narrowing is not None
        require_finite(dict(enumerate(scores)))
        counts = counts or self.counts
        if counts is None:
            assert self.narrowing.ranking is not None
            counts = ranked_counts(self.structure, scores, self.attention, self.narrowing.ranking)
        return Cut(
            attention=self.attention,
            layers={
                layer: highest(shape, self.attention, scores[layer], counts[layer])
                for layer, shape in enumerate(self.structure.layers)
            },
        )

    def without_layers(self, removed: Sequence[int]) -> Cut:
        """Keep everything but these layers."""
        kept = [layer for layer in range(self.layers) if layer not in removed]
        return Cut(attention=self.attention, layers={layer: LayerCut() for layer in kept})
