"""Precision of forwards and solvers that do not measure figures."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.engine.models.tensors import DTYPES


def forward_dtype(requested: str, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of the calibration forward: the requested one, else bfloat16 where the hardware prefers it."""
    if requested != "auto":
        return DTYPES[requested]
    if dtype is not torch.float32:
        return dtype
    native = (
        torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_prefers_bfloat16()
    )
    return torch.bfloat16 if native else dtype


def gradient_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype in which gradients of a model of that dtype are computed."""
    return dtype if device.type == "cuda" else torch.float32


@contextmanager
def bfloat16_matmul() -> Iterator[None]:
    """Allow, inside the context, products of float32 matrices to round their factors to bfloat16 or TF32.

    Sums are in float32. This is several times faster on hardware with matrix units, a little on other hardware that
    prefers bfloat16, and exact where the factors are bfloat16 values to begin with. Other hardware rounds nothing.
    """
    if not torch.cuda.is_initialized() and not _cpu_prefers_bfloat16():
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _cpu_prefers_bfloat16() -> bool:
    """Return True if the CPU multiplies bfloat16 faster than float32.

    AVX-512's bfloat16 instructions take half the time of float32's on processors of AMD; on those of Intel, which also
    have matrix units, they alone take twice as long.
    """
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    is_amd = str(capabilities.get("cpu_name", "")).startswith("AMD")
    return bool(
        capabilities.get("amx_bf16") or capabilities.get("bf16") or (is_amd and capabilities.get("avx512_bf16"))
    )
