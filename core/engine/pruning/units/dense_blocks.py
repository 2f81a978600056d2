"""Pass of the calibration tokens through the dense model, for a method that plans from the inputs of all blocks."""

from collections.abc import Iterator

import torch
from torch import Tensor

from core.engine.models.streamed import call_block
from core.engine.pruning.streams.stream import RecordedArguments
from core.engine.pruning.units.block_tokens import TokensAtBlock
from core.engine.pruning.units.context import UnitSelectionContext


def dense_blocks(context: UnitSelectionContext) -> Iterator[tuple[int, dict[str, Tensor], TokensAtBlock]]:
    """Yield every block's number, its tensors and the tokens that reach it, which have to be run.

    One block has its weights at a time; hidden states are in memory up to the budget, then in files.
    """
    assert context.calibration is not None
    streamed, dtype = context.streamed, context.forward_dtype
    batches = context.calibration.split(context.micro_batch)
    arguments = RecordedArguments(streamed, dtype)
    places = [streamed.places(each) for each in batches]
    with context.hidden_state_cache() as cache:
        for batch, tokens in enumerate(batches):
            cache.put(0, batch, streamed.embed(tokens).to(dtype))
        for index, tensors in streamed.read_blocks(range(len(streamed)), "reading what the dense blocks read"):
            block = streamed.fill_block(index, tensors, dtype)

            def run(index: int = index, block: torch.nn.Module = block) -> None:
                for batch in range(len(batches)):
                    hidden = cache.take(index, batch)
                    cache.put(index + 1, batch, call_block(block, hidden, arguments.of(batches[batch])[index]))

            yield index, tensors, TokensAtBlock(block, run, places)
            streamed.empty_block(index)
