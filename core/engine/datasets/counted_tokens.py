"""Token ids that also say which tokens count: an id that does not count is stored as its complement, ~id, below 0.

Windows of conversations are such ids. A token that does not count is read like any other, but its prediction is neither
measured nor trained. Every token of a plain text counts.
"""

import torch
from torch import Tensor


def with_counted(ids: Tensor, counted: Tensor) -> Tensor:
    """Return token ids of which only those where `counted` is True count."""
    return torch.where(counted, ids, ~ids)


def plain_ids(tokens: Tensor) -> Tensor:
    """Return the ids for a model to read; the same tensor where every token counts."""
    return tokens if (tokens >= 0).all() else torch.where(tokens < 0, ~tokens, tokens)
