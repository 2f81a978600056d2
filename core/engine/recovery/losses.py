"""Objectives that recoveries share, per batch: of tokens [batch, time], or of image numbers [batch, 1]."""

from collections.abc import Callable
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.engine.datasets.counted_tokens import plain_ids
from core.engine.datasets.image_set import ImageSet

Loss: TypeAlias = Callable[[nn.Module, Tensor], Tensor]
"""Objective to minimise: a number, or two terms, [2], for the predictions and for the hidden states."""


def next_token_loss(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Return the mean cross-entropy of each token that counts, given those before it, in nats."""
    logits_BTV = token_logits(model, plain_ids(tokens_BT))[:, :-1]
    labels_N = tokens_BT[:, 1:].flatten()
    labels_N = labels_N.masked_fill(labels_N < 0, _IGNORED)
    return functional.cross_entropy(logits_BTV.flatten(0, 1), labels_N, ignore_index=_IGNORED)


_IGNORED: Final = -100
"""Label of a token whose prediction does not count."""


def labelled_loss(images: ImageSet) -> Loss:
    """Return the mean cross-entropy of the images' labels, in nats."""

    def loss(model: nn.Module, numbers_B1: Tensor) -> Tensor:
        numbers_B = numbers_B1[:, 0].cpu()
        labels_B = images.labels_N[numbers_B].to(numbers_B1.device)
        return functional.cross_entropy(image_logits(model, images, numbers_B, numbers_B1.device), labels_B)

    return loss


def token_logits(model: nn.Module, tokens_BT: Tensor) -> Tensor:
    """Return the logits of each token's successor, [batch, time, vocabulary], in float32."""
    logits: Tensor = model(input_ids=tokens_BT, use_cache=False).logits
    return logits.float()


def image_logits(model: nn.Module, images: ImageSet, numbers_B: Tensor, device: torch.device) -> Tensor:
    """Return the logits of the images with these numbers, [batch, classes], in float32."""
    logits: Tensor = model(pixel_values=images.batch(numbers_B).to(device)).logits
    return logits.float()
