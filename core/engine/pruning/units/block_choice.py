"""Choice of a block's units in the pass that removes them, by calibration tokens that go along."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from core.engine.models.streamed import StreamedModel, call_block
from core.engine.pruning.compensation.unit_refit import UnitRefit
from core.engine.pruning.layerwise.streams import Stream
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.units.block_tokens import BlockToPrune, PrunedBlock, TokensAtBlock


@dataclass(frozen=True)
class BlockChoice:
    """A method that chooses block by block, and the streams of calibration tokens it reads.

    `dense` goes through the blocks of `streamed`, `pruned` (None where the method does not read it) through those of
    `narrow`. Where a `refit` follows, both are its streams: they go on when the block is fitted.
    """

    method: BlockUnitMethod
    streamed: StreamedModel
    dense: Stream
    narrow: StreamedModel
    pruned: Stream | None
    refit: UnitRefit | None
    log: Callable[[str], None]

    @property
    def streams(self) -> list[Stream]:
        """Streams that are not the refit's."""
        if self.refit is not None:
            return []
        return [self.dense, *([self.pruned] if self.pruned else [])]

    def prune(self, block: BlockToPrune, place: int, tensors: dict[str, Tensor]) -> PrunedBlock:
        """Let the method choose; `tensors` are the dense model's, `place` is the block's number in the narrow one."""
        module = self.streamed.fill_block(block.layer, tensors, self.dense.dtype)
        goes_on = self.refit is None

        def run_dense() -> None:
            if goes_on:
                assert self.dense.done == block.layer, "the tokens have gone through this block"
                self.dense.advance(module, block.layer)
            else:
                run(self.dense, block.layer)

        def run(stream: Stream, index: int) -> None:
            for _, hidden in stream.batches():
                call_block(module, hidden, stream.arguments(index))

        pruned = self.pruned
        pruned_block = self.method.prune_block(
            block,
            TokensAtBlock(module, run_dense),
            None if pruned is None else TokensAtBlock(module, lambda: run(pruned, place)),
            self.log,
        )
        if goes_on and self.dense.done == block.layer:
            self.dense.advance(module, block.layer)
        self.streamed.empty_block(block.layer)
        return pruned_block

    def go_on(self, place: int, left: dict[str, Tensor]) -> None:
        """Let the pruned tokens go through what is left of a block."""
        if self.pruned is not None and self.refit is None:
            self.pruned.advance(self.narrow.fill_block(place, left, self.pruned.dtype), place)
            self.narrow.empty_block(place)

    def pass_by(self, index: int, tensors: dict[str, Tensor]) -> None:
        """Advance the streams past the removed layer `index`: the dense one goes through it, the other skips it."""
        if self.refit is not None:
            return
        self.dense.advance(self.streamed.fill_block(index, tensors, self.dense.dtype), index)
        self.streamed.empty_block(index)
        if self.pruned is not None:
            self.pruned.skip_block()
