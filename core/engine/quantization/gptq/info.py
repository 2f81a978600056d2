"""GPTQ: its description."""

from core.engine.quantization.rounding_info import RoundingInfo

INFO = RoundingInfo(
    id="gptq",
    rank=10,
    summary="gptq: rounds column by column, and changes the later columns so that each layer's outputs on the "
    "calibration text change little (Frantar et al. 2022, arXiv:2210.17323). sparsegpt prunes and rounds in one step.",
    needs_calibration=True,
)
