"""The arithmetic that forwards and solvers run in where figures are not measured by them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.models.weights import DTYPES


def forward_dtype(asked: str, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Arithmetic of the calibration forward: what was asked, else bfloat16 where the hardware multiplies it faster."""
    if asked != "auto":
        return DTYPES[asked]
    if dtype is not torch.float32:
        return dtype
    native = (
        torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_prefers_bfloat16()
    )
    return torch.bfloat16 if native else dtype


def gradient_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Arithmetic that gradients of a model of that dtype are taken in."""
    return dtype if device.type == "cuda" else torch.float32


@contextmanager
def rounded_products() -> Iterator[None]:
    """In here products of float32 matrices may round their factors, to bfloat16 or TF32, and add up in float32: several
    times faster on hardware with matrix units, a little on other hardware that prefers bfloat16, and exact where the
    factors are bfloat16 values to begin with. Elsewhere nothing is rounded."""
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
    """Whether bfloat16 is multiplied faster than float32. AVX-512's instructions for it take half the time of float32's
    on processors of AMD; on those of Intel, where matrix units stand beside them, they alone take twice as long."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    is_amd = str(found.get("cpu_name", "")).startswith("AMD")
    return bool(found.get("amx_bf16") or found.get("bf16") or (is_amd and found.get("avx512_bf16")))
