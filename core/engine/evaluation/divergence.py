"""Divergence of models' predictions from the dense model's: the mean of KL(dense‖other) over tokens, in nats."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.engine.datasets.counted_tokens import counted_places, number_of_places
from core.engine.models.streamed import StreamedModel

_CHUNK = 256


@torch.inference_mode()
def divergences(
    streamed: StreamedModel, tokens: Sequence[Tensor], dense: Sequence[Tensor], others: Sequence[Sequence[Tensor]]
) -> list[float]:
    """Return the divergence of each of the `others`, which have the dense model's final norm and head.

    Predictions of tokens that do not count are left out. The inputs are batches of tokens [batch, time], and each
    model's last-block outputs for them [batch, time, hidden_size]. Predictions are computed for one window and a few
    positions at a time.
    """
    totals = [0.0] * len(others)
    for batch, tokens_BT in enumerate(tokens):
        for window in range(len(tokens_BT)):
            places_T = counted_places(tokens_BT[window : window + 1])
            all_T = torch.arange(tokens_BT.shape[1])
            for positions in (all_T if places_T is None else all_T[places_T]).split(_CHUNK):

                def predicted(
                    hidden_BTD: Tensor,
                    tokens_1T: Tensor = tokens_BT[window : window + 1],
                    window: int = window,
                    positions: Tensor = positions,
                ) -> Tensor:
                    hidden_1TD = streamed.sequences_of(hidden_BTD, window, 1).to(streamed.dtype)
                    return streamed.logits(tokens_1T, hidden_1TD, positions)[0].float().log_softmax(dim=-1)

                wanted_PV = predicted(dense[batch])
                for place, other in enumerate(others):
                    totals[place] += float(
                        torch.nn.functional.kl_div(
                            predicted(other[batch]), wanted_PV, reduction="sum", log_target=True
                        ).double()
                    )
    return [total / sum(map(number_of_places, tokens)) for total in totals]
