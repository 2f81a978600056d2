"""Block of a language model during a pass, as seen by a method that chooses the block's units there."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from core.engine.architectures.architecture import Experts
from core.engine.models.experts import ExpertStacks, RoutedTokens
from core.engine.models.hooks import removed_after
from core.engine.pruning.input_statistics import InputMoments, InputStatistic, StackedMoments
from core.engine.pruning.streams.propagation import InputGroup, arrivals
from core.engine.pruning.units.removal import UnitSet
from core.engine.pruning.units.unit_slices import StackSlice

Moments: TypeAlias = InputMoments | StackedMoments
"""Mean and variance of a weight's inputs; for a stack, those of each expert."""


@dataclass(frozen=True)
class TokensAtBlock:
    """Calibration tokens that have reached a block; `run` sends all of them through it, at most once.

    `places` are those of each micro-batch, in the order in which they run, that count; None: all of a micro-batch do.
    """

    block: nn.Module
    run: Callable[[], None]
    places: Sequence[Tensor | None]

    def moments(self, linears: Iterable[str]) -> dict[str, InputMoments]:
        """Run the tokens; return mean and variance of linear layers' inputs, by name within the block."""
        moments = {name: InputMoments() for name in linears}
        places = {name: iter(self.places) for name in moments}
        groups = [InputGroup((name,)) for name in moments]

        def arrive(group: InputGroup, inputs: Tensor) -> None:
            moments[group.first].update(inputs, next(places[group.first]))

        with arrivals(self.block, groups, arrive):
            self.run()
        return moments

    @contextmanager
    def routed(self, stacks: ExpertStacks, on_tokens: Callable[[RoutedTokens], None]) -> Iterator[None]:
        """Call `on_tokens` with each micro-batch's tokens that count as they reach the experts, inside the context."""
        places = iter(self.places)

        def arrive(module: nn.Module, arguments: tuple[object, ...], keywords: Mapping[str, object]) -> None:
            tokens = RoutedTokens.of(arguments, keywords)
            assert tokens is not None
            on_tokens(tokens.at(next(places)))

        with removed_after([stacks.module.register_forward_pre_hook(arrive, with_kwargs=True)]):
            yield

    def moments_of_units(self, experts: Experts | None, unit_sets: Iterable[UnitSet]) -> dict[str, Moments]:
        """Run the tokens; return mean and variance of the inputs of all weights that read units, by name.

        For an expert the inputs of its last matrix are multiplied by the tokens' gates, zero for tokens that are routed
        elsewhere. For an expert without tokens the inputs of all tokens count, without gates.
        """
        slices = [each for unit_set in unit_sets for each in unit_set.reading_slices]
        stacks = [each.name for each in slices if isinstance(each, StackSlice)]
        linears = [each.linear for each in slices if not isinstance(each, StackSlice)]
        if not stacks:
            of_linears = self.moments(linears)
            return {f"{linear}.weight": each for linear, each in of_linears.items()}
        assert experts is not None
        own, calls = ExpertStacks(self.block, experts), list[RoutedTokens]()
        with self.routed(own, calls.append):
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
"""Function of linear layers that read one input, and of that input's statistic after the pruned blocks. It returns
their new weights by the layer's name.

They have the shape and layout of the dense model's; removed columns are zero. The statistic has XᵀX and either the
`target_OI`, or the dense inputs' `cross_II`.
"""
FitExpert: TypeAlias = Callable[[int, Tensor, InputStatistic, bool], Tensor]
"""Function of an expert's number, its last matrix and that matrix's inputs after the pruned blocks. It returns the new
one.

Both are [outputs, inputs]; removed columns are zero. Inputs are times the tokens' gates, and `target_OI` is from the
residual of the other experts. The last argument is True if any token reaches the expert; otherwise inputs are those of
all tokens, without gates, and the target is the matrix's own output.
"""


@dataclass(frozen=True)
class PrunedTokens(TokensAtBlock):
    """Calibration tokens that have come through the earlier pruned blocks to the dense block.

    `are_dense` is True if they still equal the dense model's. `fit` replaces `run`: it sends them through the block
    once, side by side with the dense ones. The linear layers of each group, in the order of execution, get their new
    weights when all tokens have reached them; the tokens continue through these weights. Before a gap, the target of
    the last layer is the dense stream behind the gap. `fit_experts` does the same for the last matrix of each expert,
    one after the other, in a block with some changed weights, given by name. `reading` returns in advance a linear
    layer's statistic for `FitLinears`, without advancing the tokens.
    """

    are_dense: Callable[[], bool]
    fit: Callable[[Sequence[InputGroup], FitLinears], None]
    reading: Callable[[str], InputStatistic]
    fit_experts: Callable[[Mapping[str, Tensor], FitExpert], None]
