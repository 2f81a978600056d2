"""Context in which a structured method chooses units: the model, its units, the calibration tokens."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.engine.architectures.heterogeneous import Layout
from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.unit_kind import KindName, UnitKind
from core.engine.architectures.width_reduction import WidthReduction
from core.engine.cuts import RemovalPlan
from core.engine.models.folder import ModelFolder
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.schedule import counts_at
from core.engine.pruning.streams.hidden_state_cache import HiddenStateCache, hidden_state_cache
from core.engine.pruning.streams.stream import ActivationBudget
from core.engine.pruning.units.planned_tensors import PlannedTensors, TrainedWeights
from core.engine.pruning.units.ranking import ranked_counts
from core.engine.pruning.units.removal import (
    KeptUnits,
    UnitSet,
    highest,
    layer_unit_sets,
    require_finite,
)

Scores = Sequence[Mapping[KindName, Tensor]]
"""Score of each unit of each decoder layer, by kind: [units]; the highest are kept."""


@dataclass(frozen=True)
class UnitSelectionContext:
    """Dense model and everything else that a structured method may use to choose.

    `streamed` is the dense model, with empty blocks. `calibration` are token ids [sequences, time]. `scratch` is a
    folder for the activations beyond `budget`. `trained` stores the weights a method trains while it chooses; `planned`
    stores tensors of a block for the method's later use in the pass. `removal` has the counts that the kind of removal
    decided. `sparsity` is the share of all parameters to remove, or the least share with `at_least`. The remaining
    layers have the shapes of the `layout`. `begin_trials` is called before trials of a choice, whose loops are then the
    progress.
    """

    folder: ModelFolder
    structure: ModelStructure
    streamed: StreamedModel
    sparsity: float
    at_least: bool
    layout: Layout
    removal: RemovalPlan
    calibration: Tensor | None
    forward_dtype: torch.dtype
    micro_batch: int
    budget: ActivationBudget
    scratch: Path
    trained: TrainedWeights
    planned: PlannedTensors
    log: Callable[[str], None]
    begin_trials: Callable[[], None]

    @property
    def layers(self) -> int:
        return len(self.structure.layers)

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        """Kinds of units within a block that a method chooses among."""
        return self.removal.kinds

    @property
    def width_reduction(self) -> WidthReduction | None:
        """Width reduction of the layers; None where no layer gets narrower."""
        return self.removal.width_reduction

    @property
    def counts(self) -> Sequence[LayerCounts] | None:
        """Counts each layer keeps; None where they depend on the scores."""
        return None if self.width_reduction is None else self.width_reduction.counts

    def hidden_state_cache(self) -> AbstractContextManager[HiddenStateCache]:
        """Return a cache of hidden states within the budget, which is empty at the end of its context."""
        return hidden_state_cache(self.budget, self.scratch)

    def unit_sets(self, layer: int) -> list[UnitSet]:
        return layer_unit_sets(self.folder.family, self.structure, layer, self.kinds)

    def counts_at(self, share: float) -> tuple[LayerCounts, ...]:
        """Return the counts of each layer after `share` of the removal: all units at 0, `counts` at 1."""
        assert self.counts is not None
        return tuple(
            counts_at(share, counts, shape, self.kinds)
            for counts, shape in zip(self.counts, self.structure.layers, strict=True)
        )

    def keep_highest(self, scores: Scores, counts: Sequence[LayerCounts] | None = None) -> KeptUnits:
        """Keep the units of highest score in every layer, with `counts` or else the context's counts.

        Ties go to the later units. Where the units of all layers compete, the scores determine the counts too. Raises
        NotFiniteWeights where a score is not finite.
        """
        assert self.width_reduction is not None
        require_finite(dict(enumerate(scores)))
        counts = counts or self.counts
        if counts is None:
            assert self.width_reduction.ranking is not None
            counts = ranked_counts(self.structure, scores, self.kinds, self.width_reduction.ranking)
        return KeptUnits(
            layers={
                layer: highest(shape, self.kinds, scores[layer], counts[layer])
                for layer, shape in enumerate(self.structure.layers)
            },
        )

    def without_layers(self, removed: Sequence[int]) -> KeptUnits:
        """Keep everything but these layers."""
        kept = [layer for layer in range(self.layers) if layer not in removed]
        return KeptUnits(layers={layer: {} for layer in kept})
