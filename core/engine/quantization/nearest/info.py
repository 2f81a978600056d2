"""Rounding to nearest: its description."""

from core.engine.quantization.rounding_info import RoundingInfo

INFO = RoundingInfo(
    id="nearest",
    rank=20,
    summary="nearest: each weight gets the nearest code.",
    needs_calibration=False,
)
