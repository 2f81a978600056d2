"""Hidden states of models that lack a decoder layer each, all together block by block."""

from collections.abc import Collection

import torch
from torch import Tensor

from core.engine.models.streamed import call_block
from core.engine.pruning.layerwise.streams import RecordedArguments
from core.engine.pruning.units.context import UnitSelectionContext


@torch.inference_mode()
def ends_without_each(
    context: UnitSelectionContext, tokens_NT: Tensor, removed: Collection[int], tried: Collection[int]
) -> tuple[list[Tensor], dict[int, list[Tensor]]]:
    """Return what the last block gives for batches of tokens in the dense model without the layers `removed`.

    The same follows by number without each further layer that is `tried`. One block has its weights at a time; models
    have in common what lies before the layer that one of them lacks.
    """
    streamed, dtype = context.streamed, context.forward_dtype
    batches = tokens_NT.split(context.micro_batch)
    arguments = RecordedArguments(streamed, dtype)
    cache = context.hidden_state_cache()
    complete = len(streamed)
    for batch, tokens in enumerate(batches):
        cache.put(complete, batch, streamed.embed(tokens).to(dtype))
    lacking: list[int] = []
    left = [index for index in range(len(streamed)) if index not in removed]
    for index, block in streamed.filled_blocks(left, "trying the model without each layer, at blocks", dtype):
        running = [*lacking, complete]
        if index in tried:
            for batch in range(len(batches)):
                cache.put(index, batch, cache.get(complete, batch))
            lacking.append(index)
        for each in running:
            for batch in range(len(batches)):
                hidden = cache.take(each, batch)
                cache.put(each, batch, call_block(block, hidden, arguments.of(batches[batch])[index]))
    ends = {each: [cache.take(each, batch) for batch in range(len(batches))] for each in [*lacking, complete]}
    return ends.pop(complete), ends
