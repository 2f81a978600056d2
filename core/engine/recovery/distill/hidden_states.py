"""Matching of hidden states: those that a student's blocks give, with those of the teacher at the same places.

Hidden states are compared as they are, in the residual stream behind a block: what is pruned here keeps their size, so
that it needs no projection as in TinyBERT (Jiao 2020, arXiv:1909.10351). A block that stays is matched with the last
dense block before the next one that stays, so that it learns to do what those removed between them did. Minitron
(Muralidharan 2024, arXiv:2407.14679) adds such a term to that of the predictions, too.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from core.engine.models.hooks import removed_after
from core.engine.models.tracing.blocks import first_output

_LEAST_SIZE = 0.01
"""Least mean square of a dimension, as a share of the median dimension's: smaller ones are taken to have that."""


def matched_layers(layers: int, removed: Collection[int]) -> list[int]:
    """Return, for each layer that stays of so many, the number of the dense layer behind which it is matched."""
    left = [layer for layer in range(layers) if layer not in removed]
    return [following - 1 for following in [*left[1:], layers]]


@contextmanager
def outputs_of(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list that is filled, as a model runs, with the hidden states that some of its blocks give, in order.

    Outside the context nothing is kept: a block that runs again in the backward, to save activations, adds nothing.
    """
    outputs: list[Tensor] = []

    def keep(module: nn.Module, arguments: object, output: object) -> None:
        hidden = first_output(output)
        assert hidden is not None
        outputs.append(hidden)

    with removed_after([block.register_forward_hook(keep) for block in blocks]):
        yield outputs


def mean_error(given: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return the mean over blocks of the relative error of their hidden states, which does not wait for the device."""
    return torch.stack([relative_error(*pair) for pair in zip(given, wanted, strict=True)]).mean()


def relative_error(given_BTH: Tensor, wanted_BTH: Tensor) -> Tensor:
    """Return the mean over sequences and dimensions of Σ(given - wanted)² / Σ wanted², both sums over positions.

    Each dimension is measured by its own size in the sequence, not by the length of the whole vector. At the first
    token, and at some delimiters, a few dimensions are hundreds of times as large as all others (massive activations,
    Sun 2024, arXiv:2402.17762): relative to the whole vector the error would be that of these few. Here one of them is
    one of many dimensions, and the first token decides about it alone. It depends on no other sequence, so not on how a
    batch is divided. Computed in float32, or in float64 where that is given.
    """
    dtype = torch.promote_types(given_BTH.dtype, torch.float32)
    given_BTH, wanted_BTH = given_BTH.to(dtype), wanted_BTH.to(dtype)
    size_BH = wanted_BTH.square().mean(-2)
    middle_B1 = size_BH.sort(-1).values[..., size_BH.shape[-1] // 2, None]
    size_BH = torch.maximum(size_BH, _LEAST_SIZE * middle_B1).clamp_min(torch.finfo(dtype).tiny)
    return ((given_BTH - wanted_BTH).square().mean(-2) / size_BH).mean()
