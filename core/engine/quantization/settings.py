"""Ways to round weights, and choices of a job about them: defaults, the checks that they fit the model, and bytes."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.quantisation import WORD_BITS
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.exporters.exporter_info import ExportRuntime
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import Quantization

PARAM: Final = "output.quantization"
GROUP_SIZES: Final = (128, 64, 32)
"""Numbers of inputs that may share a scale, the largest first."""
LIBRARY: Final = ExportRuntime("compressed-tensors", "compressed_tensors", "worker")
"""Library that packs the weights, and opens them for transformers."""
_BITS: Final = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class RoundingInfo:
    """Description of a rounding: a sentence for users, and whether it reads layers' inputs on calibration text."""

    summary: str
    needs_calibration: bool


ROUNDINGS: Final = {
    "gptq": RoundingInfo(
        "gptq: rounds column by column, and changes the later columns so that each layer's outputs on the calibration "
        "text change little (Frantar et al. 2022, arXiv:2210.17323). sparsegpt prunes and rounds in one step.",
        needs_calibration=True,
    ),
    "nearest": RoundingInfo("nearest: each weight gets the nearest code.", needs_calibration=False),
}
"""Roundings by id, in the order of lists; the first that a job can have is its default."""


def bits_of(chosen: Quantization) -> int:
    """Return the number of bits of a code."""
    return _BITS[chosen.scheme]


def reads_inputs(chosen: Quantization) -> bool:
    """Return True if the rounding reads XᵀX of the layers' inputs on calibration text."""
    return chosen.rounding is not None and ROUNDINGS[chosen.rounding].needs_calibration


def divisor_for(chosen: Quantization, widths: Collection[int]) -> int | None:
    """Return the number that has to divide the inputs of every layer, which now are `widths`; None where none does.

    For int4 it is the group size, given or the largest possible one. For int8 it is the codes in a word.
    """
    given = [size for size in GROUP_SIZES if chosen.group_size in (None, size)]
    steps = given if chosen.scheme == "int4" else [WORD_BITS // bits_of(chosen)]
    return next((step for step in steps if not any(width % step for width in widths)), None)


def resolve_quantization(
    chosen: Quantization, description: ModelDescription, steps: Iterable[int], *, is_calibrated: bool
) -> Quantization:
    """Return the choices with their defaults; raises InvalidRequest where the model cannot be quantised so.

    Layers may lose inputs in multiples of `steps`.
    """
    name = description.architecture
    if description.has_experts:
        raise _refused(f": the stacks of experts of {name} have no place for codes and scales: leave it out")
    if description.known_as.transposed:
        reason = "stores its layers as [inputs, outputs], and readers expect codes of [outputs, inputs]"
        raise _refused(f": {name} {reason}: leave it out")
    if description.layout == "per_layer":
        raise _refused(": layers of different shapes are not quantised: leave it out")
    if chosen.group_size is not None and chosen.scheme != "int4":
        reason = f"is only for int4: {chosen.scheme} has a scale for each output channel: leave it out"
        raise _refused(f" {reason}", ".group_size")
    if chosen.group_size not in (None, *GROUP_SIZES):
        raise _refused(f" {chosen.group_size}: use one of {', '.join(map(str, GROUP_SIZES))}", ".group_size")
    widths = sorted({*(each.in_features for each in description.linears), *steps})
    divisor = divisor_for(chosen, widths)
    if divisor is None:
        needed = f"group size {chosen.group_size}" if chosen.group_size else "group sizes 128, 64 or 32"
        needed = needed if chosen.scheme == "int4" else "the 4 codes of a word"
        raise _refused(
            f": layers have {', '.join(map(str, widths))} inputs, or lose inputs in such steps, and {needed} must "
            "divide all of them: use another scheme or group_size, or a method that keeps widths, such as depth"
        )
    possible = (each for each, info in ROUNDINGS.items() if is_calibrated or not info.needs_calibration)
    rounding = chosen.rounding or next(possible)
    if ROUNDINGS[rounding].needs_calibration and not is_calibrated:
        raise InvalidRequest(
            f'calibration is required: {rounding} measures the layers\' inputs on text, for example "calibration": '
            f'{{"dataset": "NAME", "samples": 128, "sequence_length": 512}}; {PARAM}.rounding "nearest" needs none',
            param="calibration",
        )
    return chosen.model_copy(update={"rounding": rounding, "group_size": divisor if chosen.scheme == "int4" else None})


def stored_bits(description: ModelDescription, chosen: Quantization) -> int:
    """Return the bits of the blocks' quantised linear layers: their codes and scales."""
    scale = 8 * WEIGHT_BYTES[description.dtype]
    return sum(
        each.numel * bits_of(chosen) + each.numel // (chosen.group_size or each.in_features) * scale
        for each in description.linears
    )


def _refused(reason: str, part: str = "") -> InvalidRequest:
    return InvalidRequest(f"{PARAM}{part}{reason}", param=f"{PARAM}{part}")
