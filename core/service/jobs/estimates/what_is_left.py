"""Size of a pruned model: fewer parameters where units are removed, the same number where weights become zero."""

from core.device_kinds import DeviceKind
from core.engine.architectures.describe import stored_as
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.pipeline.recipes.recipe import Recipe


def describe_left(description: ModelDescription, job: Recipe, device: DeviceKind) -> ModelDescription:
    """Return the description of the pruned model, in the output's dtype. Its layers keep the dense model's shapes.

    The number of removed parameters is the least that rounding of the request allows.
    """
    description, removal = stored_as(description, job.output.dtype), job.removal
    if removal is None or removal.zeroes or not job.sparsity:
        return description
    removed = removal.least_removed(job.request.cut(description, round_to=device.round_to))
    removed = min(max(0, removed), description.prunable_parameters)
    return description.model_copy(
        update={
            "parameters": description.parameters - removed,
            "prunable_parameters": description.prunable_parameters - removed,
            "bytes": description.bytes - removed * WEIGHT_BYTES[description.dtype],
        }
    )
