"""Memory of forwards through whole language models, for timing. Without torch.

A forward without a backward holds the activations of one block at a time, and a cache of all blocks.
"""

from math import ceil

from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES

DECODED_TOKENS = 8
"""Tokens decoded one by one after a timed prefill."""
SMALL_TENSORS = 1.02
"""Factor for small tensors that are not counted: biases, norms, indices, and the allocator's rounding."""
_LONGEST_TIMED = 2048
"""Most tokens of a timed prefill."""


def timed_tokens(description: ModelDescription, sequence_length: int) -> int:
    return max(1, min(sequence_length, _LONGEST_TIMED, description.context_length - DECODED_TOKENS))


def timing_bytes(dense: ModelDescription, other_bytes: int, sequence_length: int) -> int:
    """Return the bytes for timing a model against one of at most `other_bytes`: both models, and one forward."""
    tokens = timed_tokens(dense, sequence_length)
    return ceil((dense.bytes + other_bytes + forward_bytes(dense, tokens, predicted=1)) * SMALL_TENSORS)


def forward_bytes(description: ModelDescription, tokens: int, *, predicted: int) -> int:
    """Return the bytes of a forward of `tokens` tokens, with logits for `predicted` of them and a full cache.

    The peak is the embeddings, the cache and one block's activations, or at the end the cache and the logits.
    """
    width, hidden = WEIGHT_BYTES[description.dtype], description.hidden_size
    passing, cached = approximate_values(description)
    cache = tokens * cached * description.layers
    return width * (cache + max(tokens * passing, tokens * hidden + predicted * description.vocabulary_size))


def approximate_values(description: ModelDescription) -> tuple[int, int]:
    """Return roughly the peak of values per token inside a block, and the cached values per token."""
    widest = max(each.out_features for each in description.linears)
    return 6 * description.hidden_size + 3 * widest, 2 * description.hidden_size
