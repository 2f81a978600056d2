"""Objectives of recovery, per batch of tokens [batch, time]."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss: TypeAlias = Callable[[nn.Module, Tensor], Tensor]


def next_token_loss(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Return the mean cross-entropy of each token given those before it, in nats."""
    logits_BTV = _logits(model, tokens_BT)[:, :-1]
    return functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten())


def distillation_loss(teacher: nn.Module, temperature: float) -> Loss:
    """Return the loss T² · KL(teacher ‖ student) of the next token's distribution at temperature T.

    It is the mean over all positions, in nats (Hinton 2015, arXiv:1503.02531, section 2).
    """

    def loss(model: nn.Module, tokens_BT: Tensor) -> Tensor:
        with torch.no_grad():
            wanted_NV = functional.log_softmax(_logits(teacher, tokens_BT).flatten(0, 1) / temperature, dim=-1)
        given_NV = functional.log_softmax(_logits(model, tokens_BT).flatten(0, 1) / temperature, dim=-1)
        return functional.kl_div(given_NV, wanted_NV, reduction="batchmean", log_target=True) * temperature**2

    return loss


def _logits(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=tokens_BT, use_cache=False).logits
    return logits.float()
