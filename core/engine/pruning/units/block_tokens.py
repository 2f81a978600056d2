"""Block of a language model in the middle of a pass, as a method sees it that chooses the block's units there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor, nn

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.experts import Experts
from core.engine.architectures.structure import LayerShape
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.unit_kind import KindName, UnitKind
from core.engine.models.experts import ExpertStacks, RoutedTokens
from core.engine.models.hooks import removed_after
from core.engine.pruning.input_moments import InputMoments, StackedMoments
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.streams.propagation import InputGroup, arrivals
from core.engine.pruning.units.removal import KeptLayerUnits, UnitSet, highest, require_finite
from core.engine.pruning.units.unit_slices import StackSlice

Moments: TypeAlias = InputMoments | StackedMoments
"""Mean and variance of what a weight reads, of a stack those of each expert."""


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

    def moments_of_units(self, experts: Experts | None, unit_sets: Iterable[UnitSet]) -> dict[str, Moments]:
        """Run the tokens; return mean and variance of what the weights read that read units, by their names.

        Of experts these are what the last matrix of each multiplies times the tokens' gates, zero for tokens that go to
        others; an expert that none goes to has those of all tokens, without gates.
        """
        slices = [each for unit_set in unit_sets for each in unit_set.reading_slices]
        stacks = [each.name for each in slices if isinstance(each, StackSlice)]
        linears = [each.linear for each in slices if not isinstance(each, StackSlice)]
        if not stacks:
            of_linears = self.moments(linears)
            return {f"{linear}.weight": each for linear, each in of_linears.items()}
        assert experts is not None
        own, calls = ExpertStacks(self.block, experts), list[RoutedTokens]()

        def arrive(module: nn.Module, arguments: tuple[object, ...], keywords: Mapping[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None
            calls.append(tokens)

        with removed_after([own.module.register_forward_pre_hook(arrive, with_kwargs=True)]):
            of_linears = self.moments(linears)
        of_experts = StackedMoments([_moments_of_expert(own, calls, expert) for expert in range(len(own))])
        return {f"{linear}.weight": each for linear, each in of_linears.items()} | dict.fromkeys(stacks, of_experts)


def _moments_of_expert(stacks: ExpertStacks, calls: Sequence[RoutedTokens], expert: int) -> InputMoments:
    moments = InputMoments()
    total = sum(len(tokens.hidden_NH) for tokens in calls)
    for tokens in calls:
        rows_N, inner_NI = tokens.gated_inner(stacks, expert)
        if len(rows_N):
            moments.update(inner_NI)
    if not moments.tokens:
        for tokens in calls:
            moments.update(stacks.inner(tokens.hidden_NH, expert))
    moments.add_zeros(total - moments.tokens)
    return moments


FitLinears: TypeAlias = Callable[[InputGroup, InputStatistic], Mapping[str, Tensor]]
"""Function of linear layers that read one input, and of what that is behind the pruned blocks: the weights they are to
have instead, by the layer's name.

They have the shape and layout of the dense model's; a column that is to go is zero. The statistic has XᵀX and either
the `target_OI`, or the dense inputs' `cross_II`.
"""
FitExpert: TypeAlias = Callable[[int, Tensor, InputStatistic, bool], Tensor]
"""Function of an expert's number, its last matrix and what that reads behind the pruned blocks: the one to have.

Both are [outputs, inputs], a column that is to go is zero. Inputs are times the tokens' gates, and the `target_OI` is
what the other experts leave missing. Last is said whether any token reaches the expert: else inputs are those of all
tokens, without gates, and the target is what the matrix gives.
"""


@dataclass(frozen=True)
class PrunedTokens(TokensAtBlock):
    """Calibration tokens that have come through the pruned blocks before to the dense block.

    `are_dense` says whether they are still those of the dense model. `fit` lets them go through it side by side with
    the dense ones, once, instead of `run`: the linear layers of each of the groups, in the order of execution, get
    their new weights when all tokens have reached them, and they go on through those; the target of the last one before
    a gap is the dense stream behind that. `fit_experts` does the same of the last matrix of each expert, one after the
    other, in a block that has some weights changed before, by name; `reading` tells before of a linear layer what
    `FitLinears` is told, and lets the tokens stay where they are.
    """

    are_dense: Callable[[], bool]
    fit: Callable[[Sequence[InputGroup], FitLinears], None]
    reading: Callable[[str], InputStatistic]
    fit_experts: Callable[[Mapping[str, Tensor], FitExpert], None]


@dataclass(frozen=True)
class BlockToPrune:
    """Decoder layer `layer` whole, its tensors named relative to the block, and the `counts` it is to keep.

    `tensors` has the biases too, at zero, that the counts' settings give the block; `planned` what the method wrote
    of it when it planned. `last_before_gap` is the linear layer that adds to the stream last before layers that go
    whole, None where none go right behind the block or none adds to it.
    """

    family: Architecture
    layer: int
    shape: LayerShape
    kinds: tuple[UnitKind, ...]
    unit_sets: list[UnitSet]
    counts: LayerCounts
    tensors: Mapping[str, Tensor]
    planned: Mapping[str, Tensor]
    last_before_gap: str | None = None

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

    def joined_with(self, other: "PrunedBlock") -> "PrunedBlock":
        """Return the same block without what another choice, of units of other kinds, leaves out too."""
        return PrunedBlock(
            {**other.units, **self.units},
            {**other.changed, **self.changed},
            {**other.costs, **self.costs},
            [*other.notes, *self.notes],
            {**other.scores, **self.scores},
        )
