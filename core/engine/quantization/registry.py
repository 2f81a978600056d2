"""Registry of roundings: every sibling folder whose `info` describes one. Nothing lists them or loads torch."""

from core.discovery import descriptions
from core.engine import quantization
from core.engine.quantization.rounding_info import RoundingInfo

ROUNDINGS = descriptions(quantization, RoundingInfo)
