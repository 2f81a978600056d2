"""Causal attention in blocks of queries, in place of torch's kernel where that is slow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_QUERIES = 128
"""Queries of a block. Shorter sequences, such as the few tokens whose logits are verified, keep torch's kernel."""
_SDPA = "sdpa"


@contextmanager
def attention_in_blocks() -> Iterator[None]:
    """Let models with `sdpa` attention compute it in blocks, inside the context, where `causal_attention` can."""
    before = ALL_ATTENTION_FUNCTIONS[_SDPA]
    ALL_ATTENTION_FUNCTIONS[_SDPA] = _forward
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS[_SDPA] = before


def causal_attention(q_BHTD: Tensor, k_BKTD: Tensor, v_BKTE: Tensor, scale: float) -> Tensor:
    """Return softmax(scale·QKᵀ)·V over the keys up to each query: [batch, time, heads, head_size], in bfloat16.

    Each of the K key and value heads serves H/K query heads. Scores and their softmax are in float32. A block of
    queries reads only the keys up to its end, and its scores stay in the processor's cache.
    """
    batch, heads, time, _ = q_BHTD.shape
    groups, size = v_BKTE.shape[1], v_BKTE.shape[3]
    output_BTHE = q_BHTD.new_empty(batch, time, heads, size)
    is_later_QQ = torch.ones(_QUERIES, _QUERIES, dtype=torch.bool, device=q_BHTD.device).triu(1)
    for sequence in range(batch):
        q_KGTD = q_BHTD[sequence].float().unflatten(0, (groups, -1))
        k_KDT, v_KTE = k_BKTD[sequence].float().transpose(1, 2), v_BKTE[sequence].float()
        for start in range(0, time, _QUERIES):
            stop = min(start + _QUERIES, time)
            block = slice(start, stop)
            scores_KRT = torch.bmm(q_KGTD[:, :, block].flatten(1, 2), k_KDT[:, :, :stop]).mul_(scale)
            within_KGQQ = scores_KRT.unflatten(1, (-1, stop - start))[..., block]
            within_KGQQ.masked_fill_(is_later_QQ[: stop - start, : stop - start], -torch.inf)
            mixed_KRE = torch.bmm(scores_KRT.softmax(dim=-1), v_KTE[:, :stop])
            output_BTHE[sequence, block] = mixed_KRE.view(heads, stop - start, size).transpose(0, 1)
    return output_BTHE


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """Return the attention of a module as transformers asks for it: in blocks, or else by torch's kernel."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if (
        query.dtype is torch.bfloat16
        and causal
        and attention_mask is None
        and keywords.get("position_bias") is None
        and not dropout
        and not torch.is_grad_enabled()
        and _QUERIES < query.shape[2] == key.shape[2]
    ):
        return causal_attention(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None
    answer: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout, scaling, is_causal, **keywords
    )
    return answer
