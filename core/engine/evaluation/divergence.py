"""Divergence of a model's predictions from the dense model's: the mean of KL(dense‖other) over tokens, in nats."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.engine.datasets.counted_tokens import counted_places, number_of_places
from core.engine.models.streamed import StreamedModel

_CHUNK = 256


@torch.inference_mode()
def divergence(
    streamed: StreamedModel, tokens: Sequence[Tensor], dense: Sequence[Tensor], other: Sequence[Tensor]
) -> float:
    """Return the divergence of the other model, which has the dense model's final norm and head.

    The inputs are batches of tokens [batch, time], and each model's last-block outputs for them [batch, time,
    hidden_size]. Predictions of tokens that do not count are left out. They are computed for one window and a few
    positions at a time, and compared one by one: so their distributions stay in a processor's cache.
    """
    total = torch.zeros((), dtype=torch.float64, device=streamed.device)
    for tokens_BT, *both in zip(tokens, dense, other, strict=True):
        for window, tokens_1T in enumerate(tokens_BT.split(1)):
            states = [streamed.sequences_of(each, window, 1).to(streamed.dtype) for each in both]
            places_T, all_T = counted_places(tokens_1T), torch.arange(tokens_BT.shape[1])
            for positions in (all_T if places_T is None else all_T[places_T]).split(_CHUNK):
                logits = [streamed.logits(tokens_1T, each, positions)[0].float() for each in states]
                for wanted_PV, other_PV in zip(*(each.split(1) for each in logits), strict=True):
                    total += torch.nn.functional.kl_div(
                        other_PV.log_softmax(dim=-1), wanted_PV.log_softmax(dim=-1), reduction="sum", log_target=True
                    )
    return float(total) / sum(map(number_of_places, tokens))
