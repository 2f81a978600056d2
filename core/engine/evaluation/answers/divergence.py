"""Divergence along the dense model's own answers: the mean of KL(dense‖pruned) over their predictions, in nats."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.models.streamed import StreamedModel

_POSITIONS = 256
"""Most positions whose predictions are in memory at once."""


@dataclass(frozen=True)
class SharedTokens:
    """Ids of the tokens that two vocabularies share: for each of the dense model's its id in the other, in order."""

    dense: tuple[int, ...]
    pruned: tuple[int, ...]

    def translated(self, ids: Sequence[int]) -> list[int]:
        """Return the other vocabulary's ids of an answer, up to its first token that is not shared."""
        by_id = dict(zip(self.dense, self.pruned, strict=True))
        translated: list[int] = []
        for each in ids:
            if each not in by_id:
                break
            translated.append(by_id[each])
        return translated


def shared_tokens(dense: PreTrainedTokenizerBase, pruned: PreTrainedTokenizerBase) -> SharedTokens | None:
    """Return the tokens that both tokenizers have; None where their vocabularies are equal."""
    ids, other = dense.get_vocab(), pruned.get_vocab()
    if ids == other:
        return None
    pairs = sorted((number, other[token]) for token, number in ids.items() if token in other)
    return SharedTokens(tuple(each for each, _ in pairs), tuple(each for _, each in pairs))


@torch.inference_mode()
def divergences_along(
    dense: StreamedModel,
    pruned: StreamedModel,
    states: tuple[Tensor, Tensor],
    *,
    vocabularies: tuple[int, int],
    shared: SharedTokens | None = None,
) -> tuple[Tensor, Tensor]:
    """Return KL(dense‖pruned) in nats, and 1 where both likeliest tokens are equal, at each position [predictions].

    `states` are the last block's outputs of the two models along the same text; of the pruned model there may be fewer,
    and those positions are compared. Only final norm and head of the models are used. `vocabularies` are the numbers of
    tokens with a meaning. Between different vocabularies both distributions are taken over the `shared` tokens, and sum
    to 1 there; a likeliest token that is not shared equals none.
    """
    count = min(each.shape[model.time_dimension] for model, each in zip((dense, pruned), states, strict=True))
    kl, same = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    for positions in torch.arange(count).split(_POSITIONS):
        dense_PV = _logits(dense, states[0], positions)[:, : vocabularies[0]]
        pruned_PV = _logits(pruned, states[1], positions)[:, : vocabularies[1]]
        likeliest = dense_PV.argmax(dim=-1)
        if shared is not None:
            ids = torch.tensor(shared.dense, device=dense_PV.device)
            dense_PV, pruned_PV = dense_PV[:, ids], pruned_PV[:, list(shared.pruned)]
            same[positions] = (ids[pruned_PV.argmax(dim=-1)] == likeliest).double().cpu()
        else:
            same[positions] = (pruned_PV.argmax(dim=-1) == likeliest).double().cpu()
        divergence_PV = torch.nn.functional.kl_div(
            pruned_PV.log_softmax(dim=-1), dense_PV.log_softmax(dim=-1), reduction="none", log_target=True
        )
        kl[positions] = divergence_PV.double().sum(dim=-1).cpu()
    return kl, same


def _logits(model: StreamedModel, states: Tensor, positions: Tensor) -> Tensor:
    """Return the logits [positions, V] in float32."""
    part = states.narrow(model.time_dimension, int(positions[0]), len(positions)).to(model.device)
    tokens_1T = torch.zeros(1, len(positions), dtype=torch.long)
    return model.logits(tokens_1T, part, torch.arange(len(positions)))[0].float()
