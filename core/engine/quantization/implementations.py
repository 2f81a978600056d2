"""Implementations of roundings: the classes in each rounding's module `method`, which need torch."""

import torch

from core.discovery import require_class
from core.engine import quantization
from core.engine.pruning.solver import Quantiser
from core.engine.quantization.settings import bits_of
from secateur_wire.job_body import Quantization


def rounding_for(chosen: Quantization, dtype: torch.dtype) -> Quantiser:
    """Return the rounding of a job whose choices are complete; its scales are saved in `dtype`."""
    assert chosen.rounding is not None
    kind = require_class(quantization, chosen.rounding, "method", Quantiser)
    return kind(bits=bits_of(chosen), group_size=chosen.group_size, dtype=dtype)
