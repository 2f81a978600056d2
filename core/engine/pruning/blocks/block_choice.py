"""Choice of a block's units during the pass that removes them, from calibration tokens."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.units import UnitKind
from core.engine.models.streamed import StreamedModel, call_block
from core.engine.pruning.compensation.last_matrices import fit_last_matrices, hooked_experts, mixture_batches
from core.engine.pruning.compensation.unit_refit import UnitRefit
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.streams.propagation import BlockPropagation, DenseReference, InputGroup
from core.engine.pruning.streams.stream import Stream
from core.engine.pruning.units.block_tokens import (
    BlockToPrune,
    FitExpert,
    FitLinears,
    PrunedBlock,
    PrunedTokens,
    TokensAtBlock,
)
from core.engine.pruning.units.gaps import GapPassing
from core.engine.pruning.units.planned_tensors import PlannedTensors
from core.engine.pruning.units.removal import UnitCounts, layer_unit_sets


@dataclass(frozen=True)
class BlockChoice:
    """Method that chooses block by block, and the streams of calibration tokens it reads.

    `dense` goes through the blocks of `streamed`, and `gaps` are those that `counts` leave in it. `pruned` (None where
    the method does not read it) goes through the blocks of `narrow`, which has the units of `kinds` given by `counts`.
    `planned` is the method's own plan. Where a `refit` follows, both are its streams, and it advances them.
    """

    method: BlockUnitMethod
    structure: ModelStructure
    kinds: tuple[UnitKind, ...]
    counts: UnitCounts
    planned: PlannedTensors
    streamed: StreamedModel
    dense: Stream
    gaps: GapPassing
    narrow: StreamedModel
    pruned: Stream | None
    refit: UnitRefit | None
    log: Callable[[str], None]

    @property
    def streams(self) -> list[Stream]:
        """Streams that do not belong to the refit."""
        if self.refit is not None:
            return []
        return [self.dense, *([self.pruned] if self.pruned else [])]

    def prune(self, index: int, place: int, tensors: dict[str, Tensor], complete: Mapping[str, Tensor]) -> PrunedBlock:
        """Let the method choose the units that block `index` keeps; it is block `place` of the narrow model.

        `tensors` are the dense model's. `complete` are the tensors to prune, with the biases that were added.
        """
        family = self.streamed.folder.family
        block = BlockToPrune(
            family=family,
            layer=index,
            shape=self.structure.layers[index],
            kinds=self.kinds,
            unit_sets=layer_unit_sets(family, self.structure, index, self.kinds),
            counts=self.counts.layers[index],
            tensors=complete,
            planned=self.planned.read(index),
            last_before_gap=self.gaps.output_before(index),
        )
        module = self.streamed.fill_block(index, tensors, self.dense.dtype)
        goes_on = self.refit is None

        def run_dense() -> None:
            if goes_on:
                assert self.dense.done == block.layer, "the tokens have gone through this block"
                self.dense.advance(module, block.layer)
            else:
                _run(self.dense, module, block.layer)

        pruned_block = self.method.prune_block(
            block,
            TokensAtBlock(module, run_dense, self.dense.places),
            None if self.pruned is None else self._pruned_tokens(self.pruned, block, module, place),
            self.log,
        )
        if goes_on and self.dense.done == block.layer:
            self.dense.advance_unwatched(module, block.layer)
        self.streamed.empty_block(block.layer)
        return pruned_block

    def _pruned_tokens(self, stream: Stream, block: BlockToPrune, module: nn.Module, place: int) -> PrunedTokens:
        dense = DenseReference(module, self.dense, block.layer, block.family.added_to_stream)

        def new_statistic() -> InputStatistic:
            return InputStatistic(Statistic.GRAM, sample_stride=1)

        def fit(groups: Sequence[InputGroup], fit_linears: FitLinears) -> None:
            assert self.refit is None and self.dense.done == block.layer, "the tokens are fitted to once"
            target_streams = self.gaps.targets(block.layer, module)
            changing = deepcopy(module)

            def change(group: InputGroup, statistic: InputStatistic) -> None:
                for linear, weight in fit_linears(group, statistic).items():
                    value = weight.to(self.dense.dtype)
                    changing.get_submodule(linear).weight = nn.Parameter(value, requires_grad=False)

            reference = replace(dense, target_streams=target_streams)
            BlockPropagation(changing, place, stream, groups, new_statistic, reference).prune_in_flight(change)

        def reading(linear: str) -> InputStatistic:
            assert self.refit is None and self.dense.done == block.layer, "the tokens have gone through this block"
            group = InputGroup((linear,))
            read = BlockPropagation(deepcopy(module), place, stream, [group], new_statistic, dense)
            return read.collect()[group]

        def fit_experts(before: Mapping[str, Tensor], fit_expert: FitExpert) -> None:
            assert self.refit is None and self.dense.done == block.layer, "the tokens are fitted to once"
            experts = block.family.experts
            assert experts is not None
            changing = deepcopy(module)
            for name, weight in before.items():
                changing.get_parameter(name).data.copy_(weight)
            given: list[Tensor] = []
            with hooked_experts(module, experts, lambda call, given_NH: given.append(given_NH)):
                self.dense.advance(module, block.layer)
            fit_last_matrices(
                experts,
                changing,
                mixture_batches(experts, changing, stream, place, self.dense, given),
                block.tensors,
                fit_expert,
            )
            stream.advance(changing, place)

        are_dense = partial(stream.equals, self.dense)
        return PrunedTokens(
            module, lambda: _run(stream, module, place), stream.places, are_dense, fit, reading, fit_experts
        )

    def advance_pruned(self, place: int, left: dict[str, Tensor]) -> None:
        """Advance the pruned tokens through the rest of a block, unless they advanced with the dense ones."""
        if self.pruned is not None and self.refit is None and self.pruned.done < self.dense.done:
            self.pruned.advance(self.narrow.fill_block(place, left, self.pruned.dtype), place)
            self.narrow.empty_block(place)

    def skip_layer(self, index: int, tensors: dict[str, Tensor]) -> None:
        """Advance the streams past the removed layer `index`: the dense one goes through it, the other skips it."""
        if self.refit is not None:
            return
        self.gaps.pass_layer(index, tensors)
        if self.pruned is not None:
            self.pruned.skip_block()


def _run(stream: Stream, block: nn.Module, index: int) -> None:
    """Run a stream's tokens through a block without advancing them."""
    for batch, hidden in stream.batches():
        call_block(block, hidden, stream.arguments(index, batch))
