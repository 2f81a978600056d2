"""What this machine multiplies: floating-point operations per second of matrix products, in float32 and bfloat16."""

import time
from typing import Any

import torch

_SECONDS = 1.5
_SHAPES = ((4096, 576, 1536), (4096, 1536, 576), (2048, 2048, 2048))


def flops_per_second(dtype: torch.dtype) -> float:
    """The best rate seen over the shapes, each multiplied for a while: a bound, so the fastest repeat counts."""
    best = 0.0
    for rows, inner, columns in _SHAPES:
        left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
        torch.mm(left, right)
        until = time.perf_counter() + _SECONDS
        while (begun := time.perf_counter()) < until:
            torch.mm(left, right)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - begun))
    return best


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Rates by dtype."""
    return {name: flops_per_second(getattr(torch, name)) for name in ("float32", "bfloat16")}
