"""Precision of forwards and solvers whose results are not reported figures."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from transformers import PreTrainedModel

from core.engine.models.accelerator import backend_of
from core.engine.models.causal_attention import attention_in_blocks
from core.engine.models.tensors import DTYPES

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
