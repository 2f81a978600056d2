"""Memory of forwards through whole language models, for timing and for zero-shot tasks. Without torch.

A forward without a backward holds the activations of one block at a time, and a cache of all blocks.
"""

from math import ceil

from core.engine.architectures.block_shape import BlockShape
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.evaluation.zero_shot_tasks import batch_size

DECODED_TOKENS = 8
"""Tokens decoded one by one after a timed prefill."""
SMALL_TENSORS = 1.02
"""Factor for small tensors that are not counted: biases, norms, indices, and the allocator's rounding."""
_LONGEST_TIMED = 2048
"""Most tokens of a timed prefill."""
_ROTARY_FEATURES = 128
"""Features of the widest heads with rotary embeddings; a forward holds a sine and a cosine of each."""


def timed_tokens(description: ModelDescription, sequence_length: int) -> int:
    return max(1, min(sequence_length, _LONGEST_TIMED, description.context_length - DECODED_TOKENS))


def timing_bytes(dense: ModelDescription, other_bytes: int, sequence_length: int) -> int:
    """Return the bytes for timing a model against one of at most `other_bytes`: both models, and one forward."""
    tokens = timed_tokens(dense, sequence_length)
    return ceil((dense.bytes + other_bytes + forward_bytes(dense, tokens, predicted=1)) * SMALL_TENSORS)


def scoring_bytes(description: ModelDescription, longest: int, logits_bytes: int) -> int:
    """Return the bytes for scoring questions of at most `longest` tokens.

    Log-probabilities of a batch are still in memory while the next batch runs and its logits are computed.
    """
    longest = min(longest, description.context_length)
    batch = batch_size(longest, description.vocabulary_size, logits_bytes)
    tokens = batch * max(longest - 1, 1)  # an answer's last token is not an input
    logits = tokens * description.vocabulary_size * WEIGHT_BYTES[description.dtype]
    passing = forward_bytes(description, tokens, predicted=tokens)
    return ceil((description.bytes + logits + max(passing, 2 * logits)) * SMALL_TENSORS)


def forward_bytes(description: ModelDescription, tokens: int, *, predicted: int) -> int:
    """Return the bytes of a forward of `tokens` tokens, with logits for `predicted` of them and a full cache.

    The peak is the embeddings, the cache and one block's activations, or at the end the cache and the logits.
    """
    width, hidden = WEIGHT_BYTES[description.dtype], description.hidden_size
    passing, cached = _values_of_a_token(description)
    cache = tokens * cached * description.layers
    return width * (cache + max(tokens * passing, tokens * hidden + predicted * description.vocabulary_size))


def _values_of_a_token(description: ModelDescription) -> tuple[int, int]:
    """Return the peak of values per token inside a block, embedding included, and the cached values per token.

    The numbers are rough for a mixture, whose experts get each token several times, and for a block of unknown parts.
    """
    hidden, block = description.hidden_size, BlockShape.of(description)
    if not block.groups or any(linear.experts for linear in description.linears):
        return approximate_values(description)
    return hidden + block.passing + 2 * min(_ROTARY_FEATURES, hidden), block.cached


def approximate_values(description: ModelDescription) -> tuple[int, int]:
    """Return roughly the peak of values per token inside a block, and the cached values per token."""
    widest = max(each.out_features for each in description.linears)
    return 6 * description.hidden_size + 3 * widest, 2 * description.hidden_size
