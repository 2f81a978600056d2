"""Pass of the calibration tokens through the dense model, for a method that plans from the inputs of all blocks."""

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from core.engine.pruning.units.block_tokens import TokensAtBlock
from core.engine.pruning.units.context import UnitSelectionContext


def dense_blocks(context: UnitSelectionContext) -> Iterator[tuple[int, dict[str, Tensor], TokensAtBlock]]:
    """Yield every block's number, its tensors and the tokens that reach it, which have to be run.

    One block has its weights at a time; hidden states are in memory up to the budget, then in files.
    """
    assert context.calibration is not None
    streamed = context.streamed
    with context.stream("dense", context.calibration) as stream:
        stream.start()
        for index, tensors in streamed.read_blocks(range(len(streamed)), "reading what the dense blocks read"):
            block = streamed.fill_block(index, tensors, stream.dtype)
            yield index, tensors, TokensAtBlock(block, partial(stream.advance, block, index), stream.places)
            streamed.empty_block(index)
