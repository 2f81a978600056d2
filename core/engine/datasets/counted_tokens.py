"""Token ids that also say which tokens count: an id that does not count is stored as its complement, ~id, below 0.

Windows of conversations are such ids. A token that does not count is read like any other, but its prediction is neither
measured nor trained, and statistics of a pass leave out the place that predicts it. Every token of a plain text counts.
"""

import torch
from torch import Tensor


def with_counted(ids: Tensor, counted: Tensor) -> Tensor:
    """Return token ids of which only those where `counted` is True count."""
    return torch.where(counted, ids, ~ids)


def plain_ids(tokens: Tensor) -> Tensor:
    """Return the ids for a model to read; the same tensor where every token counts."""
    return tokens if (tokens >= 0).all() else torch.where(tokens < 0, ~tokens, tokens)


def counted_places(tokens_BT: Tensor) -> Tensor | None:
    """Return True for the places whose next token counts, [batch · time]; None where all do.

    The last place of a window predicts nothing in it, and counts where its own token does.
    """
    counted_BT = tokens_BT >= 0
    return None if counted_BT.all() else torch.cat([counted_BT[:, 1:], counted_BT[:, -1:]], dim=1).flatten()


def predicted_places(tokens_T: Tensor, span: tuple[int, int] | None) -> Tensor:
    """Return the places of a window whose next token is predicted and counts, in the span of tokens if there is one."""
    places_P = (tokens_T[1:] >= 0).nonzero()[:, 0]
    if span is None:
        return places_P
    first, end = span
    return places_P[(places_P >= first - 1) & (places_P < end - 1)]


def number_of_places(tokens_BT: Tensor) -> int:
    """Return the number of places whose next token counts."""
    places_N = counted_places(tokens_BT)
    return tokens_BT.numel() if places_N is None else int(places_N.sum())


def mean_predictions(tokens_NT: Tensor) -> float:
    """Return the mean number of predictions of a window that count; nothing predicts its first token."""
    return int((tokens_NT[:, 1:] >= 0).sum()) / len(tokens_NT)


def rows_at(values: Tensor, places_N: Tensor | None) -> Tensor:
    """Return the rows [places, features] of values [..., features] at the places that count; None: all of them."""
    rows_NF = values.reshape(-1, values.shape[-1])
    return rows_NF if places_N is None else rows_NF[places_N.to(rows_NF.device)]
