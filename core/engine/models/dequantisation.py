"""Arithmetic of quantised weights: codes times scales, as transformers computes it when it dequantises a model.

Products are float32 and rounded once. The codes are taken a few at a time, so that beside the result only they are in
memory.
"""

import torch
from torch import Tensor

_AT_ONCE = 2**22
_FOUR_BITS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_EXPONENT_BIAS = 127


def dequantise(codes: Tensor, scales: Tensor, block: tuple[int, int] | None, dtype: torch.dtype) -> Tensor:
    """Return the weight of codes and scales: FP8 whose scales hold for a block of so many rows and columns, or MXFP4.

    FP8 is of shape [..., rows, columns] and scaled by [..., rows / block, columns / block], rounded up, or by a single
    number; MXFP4 is as `core.engine.checkpoints.quantisation` describes it.
    """
    return _mxfp4(codes, scales, dtype) if block is None else _fp8(codes, scales, block, dtype)


def _fp8(codes: Tensor, scales: Tensor, block: tuple[int, int], dtype: torch.dtype) -> Tensor:
    weight = torch.empty(codes.shape, dtype=dtype)
    *_, rows, columns = codes.shape
    grid = (-(-rows // block[0]), -(-columns // block[1]))
    step = max(1, _AT_ONCE // (columns * block[0])) * block[0]
    factors = scales.float().expand(*codes.shape[:-2], *grid).reshape(-1, *grid)
    for codes_RC, weight_RC, factors_GH in zip(
        codes.view(-1, rows, columns), weight.view(-1, rows, columns), factors, strict=True
    ):
        by_column_GC = factors_GH.repeat_interleave(block[1], dim=1)[:, :columns]
        for start in range(0, rows, step):
            part = codes_RC[start : start + step].float()
            scale = by_column_GC[start // block[0] : (start + step) // block[0]].repeat_interleave(block[0], dim=0)
            weight_RC[start : start + step] = part.mul_(scale[: len(part)])
    return weight


def _mxfp4(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    experts, outputs, groups, size = codes.shape
    values = torch.tensor([*_FOUR_BITS, *(-each for each in _FOUR_BITS)])
    weight_EIO = torch.empty(experts, 2 * size * groups, outputs, dtype=dtype)
    exponents = scales.view(torch.uint8).int() - _EXPONENT_BIAS
    step = max(1, _AT_ONCE // (2 * size * groups))
    for expert in range(experts):
        for start in range(0, outputs, step):
            part = codes[expert, start : start + step].int()
            both = torch.stack([values[part & 0x0F], values[part >> 4]], dim=-1).flatten(-2)
            scaled = torch.ldexp(both, exponents[expert, start : start + step, :, None])
            weight_EIO[expert, :, start : start + step] = scaled.flatten(-2).T
    return weight_EIO
