"""Size of what a job leaves of a model: fewer parameters where units go, all of them where weights become zero."""

from core.device_kinds import DeviceKind
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.options.patterns import STRUCTURED
from core.engine.options.width import WidthOptions
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.estimates.block_shape import BlockShape


def describe_left(description: ModelDescription, job: Recipe, device: DeviceKind) -> ModelDescription:
    """Return the description of what is left, whose layers have the dense model's shapes still.

    As many parameters go as were asked for, less what rounding may leave: half a layer, or half a step of the channels
    of each.
    """
    if job.pattern != STRUCTURED.text or not job.sparsity:
        return description
    block = BlockShape.of(description)
    step, layers = block.weights, 1
    if isinstance(job.parameters, WidthOptions):
        channel = sum(block.hidden_size * len(group.sizes) for group in block.groups[-2:])
        step, layers = (job.parameters.round_to or device.round_to) * channel, description.layers
    spared = 0 if job.target is not None else layers * step // 2
    removed = min(max(0, round(job.sparsity * description.parameters) - spared), description.prunable_parameters)
    return description.model_copy(
        update={
            "parameters": description.parameters - removed,
            "prunable_parameters": description.prunable_parameters - removed,
            "bytes": description.bytes - removed * WEIGHT_BYTES[description.dtype],
        }
    )
