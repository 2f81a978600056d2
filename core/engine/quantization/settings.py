"""Choices of a job about quantised weights: their defaults, the checks that they fit the model, and the bytes."""

from collections.abc import Iterable
from typing import Final

from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.quantisation import WORD_BITS
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.exporters.exporter_info import ExportRuntime
from core.engine.quantization.registry import ROUNDINGS
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import Quantization

PARAM: Final = "output.quantization"
GROUP_SIZES: Final = (128, 64, 32)
"""Numbers of inputs that may share a scale, the largest first."""
LIBRARY: Final = ExportRuntime("compressed-tensors", "compressed_tensors", "worker")
"""Library that packs the weights, and opens them for transformers."""
_BITS: Final = {"int8": 8, "int4": 4}


def bits_of(chosen: Quantization) -> int:
    """Return the number of bits of a code."""
    return _BITS[chosen.scheme]


def reads_inputs(chosen: Quantization) -> bool:
    """Return True if the rounding reads XᵀX of the layers' inputs on calibration text."""
    return chosen.rounding is not None and ROUNDINGS[chosen.rounding].needs_calibration


def divisor_for(chosen: Quantization, widths: Iterable[int]) -> int | None:
    """Return the number that has to divide the inputs of every layer, which now are `widths`; None where none does.

    For int4 it is the group size, given or the largest possible one. For int8 it is the codes in a word.
    """
    given = [size for size in GROUP_SIZES if chosen.group_size in (None, size)]
    steps = given if chosen.scheme == "int4" else [WORD_BITS // bits_of(chosen)]
    widths = list(widths)
    return next((step for step in steps if not any(width % step for width in widths)), None)


def resolve_quantization(
    chosen: Quantization, description: ModelDescription, steps: Iterable[int], *, is_calibrated: bool
) -> Quantization:
    """Return the choices with their defaults; raises InvalidRequest where the model cannot be quantised so.

    Layers may lose inputs in multiples of `steps`.
    """
    if description.has_experts:
        raise _refused(f"the stacks of experts of {description.architecture} have no place for codes and scales")
    if description.known_as.transposed:
        raise _refused(
            f"{description.architecture} stores its layers as [inputs, outputs], and readers expect codes of "
            "[outputs, inputs]"
        )
    if description.layout == "per_layer":
        raise _refused("layers of different shapes are not quantised")
    if chosen.group_size is not None and chosen.scheme != "int4":
        raise InvalidRequest(
            f"{PARAM}.group_size is only for int4: {chosen.scheme} has a scale for each output channel: leave it out",
            param=f"{PARAM}.group_size",
        )
    if chosen.group_size not in (None, *GROUP_SIZES):
        raise InvalidRequest(
            f"{PARAM}.group_size {chosen.group_size}: use one of {', '.join(map(str, GROUP_SIZES))}",
            param=f"{PARAM}.group_size",
        )
    widths = sorted({*(each.in_features for each in description.linears), *steps})
    divisor = divisor_for(chosen, widths)
    if divisor is None:
        needed = f"group size {chosen.group_size}" if chosen.group_size else "group sizes 128, 64 or 32"
        needed = needed if chosen.scheme == "int4" else "the 4 codes of a word"
        raise InvalidRequest(
            f"{PARAM}: layers have {', '.join(map(str, widths))} inputs, or lose inputs in such steps, and {needed} "
            "must divide all of them: use another scheme or group_size, or a method that keeps widths, such as depth",
            param=PARAM,
        )
    rounding = chosen.rounding or next(
        each.id for each in ROUNDINGS.values() if is_calibrated or not each.needs_calibration
    )
    if ROUNDINGS[rounding].needs_calibration and not is_calibrated:
        raise InvalidRequest(
            f'calibration is required: {rounding} measures the layers\' inputs on text, for example "calibration": '
            f'{{"dataset": "NAME", "samples": 128, "sequence_length": 512}}; {PARAM}.rounding "nearest" needs none',
            param="calibration",
        )
    update = {"rounding": rounding, "group_size": divisor if chosen.scheme == "int4" else None}
    return chosen.model_copy(update=update)


def stored_bits(description: ModelDescription, chosen: Quantization) -> int:
    """Return the bits of the blocks' quantised linear layers: their codes and scales."""
    scale = 8 * WEIGHT_BYTES[description.dtype]
    return sum(
        each.numel * bits_of(chosen) + each.numel // (chosen.group_size or each.in_features) * scale
        for each in description.linears
    )


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(f"{PARAM}: {reason}: leave it out", param=PARAM)
