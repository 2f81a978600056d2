"""Block of a language model in the middle of a pass, as a method sees it that chooses the block's units there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor, nn

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.structure import LayerShape
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.unit_kind import KindName, UnitKind
from core.engine.pruning.input_moments import InputMoments
from core.engine.pruning.input_statistics import InputStatistic
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


FitLinear: TypeAlias = Callable[[str, InputStatistic], Tensor]
"""Function of a linear layer's name and of what it reads behind the pruned blocks: the weight it is to have instead.

Both weights have the shape and layout of the dense model's; a column that is to go is zero. The statistic has XᵀX and
either the `target_OI`, or the dense inputs' `cross_II`.
"""


@dataclass(frozen=True)
class PrunedTokens(TokensAtBlock):
    """Calibration tokens that have come through the pruned blocks before to the dense block.

    `are_dense` says whether they are still those of the dense model. `fit` lets them go through it side by side with
    the dense ones, once, instead of `run`: each of the named linear layers, in the order of execution, gets its new
    weight when all tokens have reached it, and they go on through that.
    """

    are_dense: Callable[[], bool]
    fit: Callable[[Sequence[str], FitLinear], None]


@dataclass(frozen=True)
class BlockToPrune:
    """Decoder layer `layer` whole, its tensors named relative to the block, and the `counts` it is to keep.

    `tensors` has the biases too, at zero, that the counts' settings give the block; `planned` what the method wrote
    of it when it planned.
    """

    family: Architecture
    layer: int
    shape: LayerShape
    kinds: tuple[UnitKind, ...]
    unit_sets: list[UnitSet]
    counts: LayerCounts
    tensors: Mapping[str, Tensor]
    planned: Mapping[str, Tensor]

    def keep_highest(self, scores: Mapping[KindName, Tensor]) -> KeptLayerUnits:
        """Keep the units of highest score, as many as the counts say; raises NotFiniteWeights."""
        require_finite({self.layer: scores})
        return highest(self.shape, self.kinds, scores, self.counts)


@dataclass(frozen=True)
class PrunedBlock:
    """The units a block keeps, and its tensors that changed, in the shape they have without the others.

    `scores` are those by which they were chosen, of all there were, by kind, where there are some. `costs` is the
    increase of the loss expected of what goes, by kind, in nats a token, where there is an estimate.
    """

    units: KeptLayerUnits
    changed: Mapping[str, Tensor] = field(default_factory=dict)
    costs: Mapping[KindName, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    scores: Mapping[KindName, Sequence[float]] = field(default_factory=dict)
