"""Memory that forwards through whole models take: of models that are timed, or asked questions. Without torch.

A forward without a backward holds one block's values at a time, and a cache of all of them.
"""

from math import ceil

from core.engine.architectures.block_shape import BlockShape
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.evaluation.zero_shot_tasks import batch_size

DECODED_TOKENS = 8
"""Tokens that are decoded one by one after a prefill that is timed."""
SMALL_TENSORS = 1.02
"""All there is, to what is counted: biases, norms, indices, and what an allocator rounds up."""
_LONGEST_TIMED = 2048
"""Most tokens of a prefill that is timed."""
_ROTARY_FEATURES = 128
"""Features of the widest heads that are rotated, of which a forward holds a sine and a cosine."""


def timed_tokens(description: ModelDescription, sequence_length: int) -> int:
    """Return how many tokens of such a sequence a model is timed on."""
    return max(1, min(sequence_length, _LONGEST_TIMED, description.context_length - DECODED_TOKENS))


def timing_bytes(dense: ModelDescription, other_bytes: int, sequence_length: int) -> int:
    """Return the bytes in which a model and one of at most `other_bytes` are timed in turn: both, and one's forward."""
    tokens = timed_tokens(dense, sequence_length)
    return ceil((dense.bytes + other_bytes + forward_bytes(dense, tokens, predicted=1)) * SMALL_TENSORS)


def asking_bytes(description: ModelDescription, longest: int, logits_bytes: int) -> int:
    """Return the bytes in which a model is asked questions of at most so many tokens.

    Log-probabilities of a batch are still there while the next one passes, and is made logits and those of its own.
    """
    longest = min(longest, description.context_length)
    batch = batch_size(longest, description.vocabulary_size, logits_bytes)
    tokens = batch * max(longest - 1, 1)  # the last of an answer need not be read
    logits = tokens * description.vocabulary_size * WEIGHT_BYTES[description.dtype]
    passing = forward_bytes(description, tokens, predicted=tokens)
    return ceil((description.bytes + logits + max(passing, 2 * logits)) * SMALL_TENSORS)


def forward_bytes(description: ModelDescription, tokens: int, *, predicted: int) -> int:
    """Return the bytes of a forward of so many tokens, of which so many are `predicted`, with a cache of them all.

    There are the embeddings and, with each block's values in turn, the cache; at the end the logits beside it.
    """
    width, hidden = WEIGHT_BYTES[description.dtype], description.hidden_size
    passing, cached = _values_of_a_token(description)
    cache = tokens * cached * description.layers
    return width * (cache + max(tokens * passing, tokens * hidden + predicted * description.vocabulary_size))


def _values_of_a_token(description: ModelDescription) -> tuple[int, int]:
    """Return the most values of a token inside a block, its embedding among them, and those that a cache keeps of it.

    Of a mixture, whose experts get each token several times, and of a block that is not known in parts, about so many.
    """
    hidden, block = description.hidden_size, BlockShape.of(description)
    if not block.groups or any(linear.experts for linear in description.linears):
        return rough_values(description)
    return hidden + block.passing + 2 * min(_ROTARY_FEATURES, hidden), block.cached


def rough_values(description: ModelDescription) -> tuple[int, int]:
    """Return about how many values of a token are inside a block at the most, and those that a cache keeps of it."""
    broadest = max(each.out_features for each in description.linears)
    return 6 * description.hidden_size + 3 * broadest, 2 * description.hidden_size
