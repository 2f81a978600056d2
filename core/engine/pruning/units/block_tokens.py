"""Block of a language model in the middle of a pass, as a method sees it that chooses the block's units there."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.structure import LayerShape
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.unit_kind import KindName, UnitKind
from core.engine.pruning.input_moments import InputMoments
from core.engine.pruning.layerwise.propagation import InputGroup, arrivals
from core.engine.pruning.units.removal import KeptLayerUnits, UnitSet, highest, require_finite


@dataclass(frozen=True)
class TokensAtBlock:
    """Calibration tokens that have come to a block; `run` lets all of them go through it, which may be done once."""

    block: nn.Module
    run: Callable[[], None]

    def moments(self, linears: Iterable[str]) -> dict[str, InputMoments]:
        """Run the tokens; return mean and variance of what linear layers read, named relative to the block."""
        moments = {name: InputMoments() for name in linears}
        groups = [InputGroup((name,)) for name in moments]
        with arrivals(self.block, groups, lambda group, inputs: moments[group.first].update(inputs)):
            self.run()
        return moments


@dataclass(frozen=True)
class BlockToPrune:
    """Decoder layer `layer` whole, its tensors named relative to the block, and the `counts` it is to keep.

    `tensors` has the biases too, at zero, that the counts' settings give the block.
    """

    family: Architecture
    layer: int
    shape: LayerShape
    kinds: tuple[UnitKind, ...]
    unit_sets: list[UnitSet]
    counts: LayerCounts
    tensors: Mapping[str, Tensor]

    def keep_highest(self, scores: Mapping[KindName, Tensor]) -> KeptLayerUnits:
        """Keep the units of highest score, as many as the counts say; raises NotFiniteWeights."""
        require_finite({self.layer: scores})
        return highest(self.shape, self.kinds, scores, self.counts)


@dataclass(frozen=True)
class PrunedBlock:
    """The units a block keeps, and its tensors that changed, in the shape they have without the others."""

    units: KeptLayerUnits
    changed: Mapping[str, Tensor] = field(default_factory=dict)
