"""Precision of forwards and solvers whose results are not reported figures, and attention where torch's is slow."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core.engine.models.accelerator import backend_of
from core.engine.models.tensors import DTYPES

_QUERIES = 128
"""Queries of a block. Shorter sequences, such as the few tokens whose logits are verified, keep torch's kernel."""


_IN_BLOCKS: ContextVar[bool] = ContextVar("attention in blocks", default=False)
"""Whether this thread computes causal attention in blocks."""


@contextmanager
def attention_in_blocks() -> Iterator[None]:
    """Let models with `sdpa` attention compute it in blocks, inside the context, where `causal_attention` can.

    transformers looks its functions up by name for the whole process, so that ours stands there from then on, and asks
    whether its own thread is inside such a context.
    """
    ALL_ATTENTION_FUNCTIONS["sdpa"] = _forward
    token = _IN_BLOCKS.set(True)
    try:
        yield
    finally:
        _IN_BLOCKS.reset(token)


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
        _IN_BLOCKS.get()
        and query.dtype is torch.bfloat16
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


LOGIT_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference of logits by dtype, relative to the largest one, that sums in another order may cause."""


def writing_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype in which a model of `dtype` writes text: 16 bits where the hardware multiplies them fast.

    On a CPU without units for bfloat16, products of 16-bit matrices take several times as long as those of float32.
    """
    backend = backend_of(device)
    if dtype is not torch.float32 and backend.kind.prefers_16_bit:
        return dtype
    return torch.bfloat16 if backend.prefers_bfloat16() else torch.float32


def measuring_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype in which a model of `dtype` answers where its answers are measured.

    It is the model's own, or float32 where the hardware multiplies 16-bit matrices slowly: no weight is rounded.
    """
    return dtype if writing_dtype(dtype, device) is dtype else torch.float32


def gradient_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of the gradients of a model in that dtype."""
    return dtype if backend_of(device).kind.prefers_16_bit else torch.float32


def forward_dtype(requested: str, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of calibration forwards of a model in `dtype`, and of gradients in their hidden states.

    It is the requested one, else bfloat16 where the hardware prefers it, else float32 where it multiplies 16-bit
    matrices slowly; the range of float16 stays.
    """
    if requested != "auto":
        return DTYPES[requested]
    prefers_bfloat16 = dtype is not torch.float16 and backend_of(device).prefers_bfloat16()
    return torch.bfloat16 if prefers_bfloat16 else gradient_dtype(dtype, device)


def kept_in_float32(model: PreTrainedModel, dtype: torch.dtype) -> Callable[[str], bool]:
    """Return a test for parameter names that `from_pretrained` keeps in float32 where the model is in `dtype`."""
    kept = set(model._keep_in_fp32_modules_strict or ()) if dtype in (torch.float16, torch.bfloat16) else set()
    if dtype == torch.float16:
        kept |= set(model._keep_in_fp32_modules or ())
    patterns = [re.compile(re.escape(each).replace(r"\*", ".*")) for each in kept]
    return lambda name: any(pattern.search(name) for pattern in patterns)


@contextmanager
def fast_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute products of float32 matrices in float32, inside the context, and as fast as torch can on a device.

    Where torch's own choice of a library is slow, another one multiplies float32 matrices, and causal attention in
    bfloat16 is computed in blocks.
    """
    is_slow = backend_of(device).prefers_onednn()
    with _float32_precision("medium" if is_slow else "highest"), attention_in_blocks() if is_slow else nullcontext():
        yield


@contextmanager
def small_products() -> Iterator[None]:
    """Multiply matrices, inside the context, by torch's usual library.

    oneDNN compiles code for every shape, which takes longer than small products of many shapes, and stays in memory.
    """
    with _float32_precision("highest"):
        yield


@contextmanager
def bfloat16_matmul(device: torch.device) -> Iterator[None]:
    """Allow, inside the context, products of float32 matrices on a device to round their factors to bfloat16 or TF32.

    Sums are in float32. This is several times faster on hardware with matrix units, and a little faster on other
    hardware that prefers bfloat16; it is exact where the factors are bfloat16 values already. Other hardware rounds
    nothing.
    """
    if not backend_of(device).prefers_bfloat16():
        yield
        return
    with _float32_precision("medium"):
        yield


@contextmanager
def _float32_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
