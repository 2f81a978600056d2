"""Memory of activations that are kept between forward and backward, from the model's description. Without torch."""

from core.engine.architectures.description import ModelDescription
from core.engine.recovery.request import Recovery, sequences_at_once

_HIDDEN_COPIES = 16
"""Tensors of a block as wide as the hidden states: norms and their parts, residuals, attention and its rotations."""
_FFN_COPIES = 5


def kept_activation_bytes(description: ModelDescription, recovery: Recovery) -> int:
    """Return the bytes of the activations of all blocks, in float32, for training the weights."""
    tokens = sequences_at_once(recovery) * (recovery.sequence_length or 0)
    widest = max(each.out_features for each in description.linears if each.layer == 0)
    return 4 * tokens * description.layers * (_HIDDEN_COPIES * description.hidden_size + _FFN_COPIES * widest)
