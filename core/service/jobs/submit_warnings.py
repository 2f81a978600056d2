"""Warnings about a job that can run, but will probably not reach the targets in its body."""

from collections.abc import Collection

from core.device_kinds import fastest_kind
from core.engine.exporters.registry import ADDED
from core.engine.removals.widths import width_divisor
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.sizes import no_speed_up
from secateur_wire.metrics import NOISE

_FLOAT16_MOST = 65_504


def warnings_for(job: Recipe, devices: Collection[str]) -> list[str]:
    """Return a list of warnings; `devices` are those of the queue's workers, empty where none is known."""
    return [*_gate_on_latency(job), *_float16_on_cpu(job, devices), *_blocks_not_filled(job)]


def _gate_on_latency(job: Recipe) -> list[str]:
    """Warn about a latency limit that a model of zeros can only meet by chance: it is as slow as the dense model."""
    limit = job.gates.max_latency_ratio
    if limit is None or limit >= 1 + NOISE or not get_method(job.method).prunes or job.shrinks:
        return []
    return [f"gates.max_latency_ratio {limit:g} will most likely be missed: {no_speed_up(job.method)}"]


def _float16_on_cpu(job: Recipe, devices: Collection[str]) -> list[str]:
    propagation = job.parameters.propagation_options
    if propagation is None or propagation.forward_dtype != "float16":
        return []
    if not devices or fastest_kind(devices).prefers_16_bit:
        return []
    return [
        f"parameters.forward_dtype float16: the workers of queue {job.queue!r} have no GPU. On a CPU the calibration "
        "forward does run in float16, as asked, but no faster than in float32, and activations beyond "
        f"{_FLOAT16_MOST:,} become infinite: use 'auto', which is bfloat16 where the CPU multiplies it faster"
    ]


def _blocks_not_filled(job: Recipe) -> list[str]:
    """Warn about widths whose rows an added file cannot store in its type."""
    round_to = width_divisor(job.parameters)
    if round_to is None:
        return []
    blocks = [min(widths) for each in job.output.exports if (widths := ADDED[each.format].widths(each.types))]
    return [
        f"parameters.round_to {round_to}: rows that are no whole blocks of {block} are stored in a wider type than was "
        "asked for: leave it out, or use a multiple"
        for block in blocks
        if round_to % block
    ]
