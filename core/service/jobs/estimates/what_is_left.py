"""Size of what a job leaves of a model: fewer parameters where units go, all of them where weights become zero."""

from collections.abc import Mapping

from core.device_kinds import DeviceKind
from core.engine.architectures.block_shape import BlockShape
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.layer_count import layer_count
from core.engine.architectures.unit_kind import KindName
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.options.experts import ExpertOptions
from core.engine.options.patterns import STRUCTURED
from core.engine.options.width import WidthOptions
from core.engine.options.width_counts import plan_width_reduction
from core.errors import InvalidSparsity
from core.pipeline.recipes.recipe import Recipe


def kept_shares(description: ModelDescription, job: Recipe, device: DeviceKind) -> Mapping[KindName, float]:
    """Return the largest share that a layer keeps of its units of each kind, where it is known before they are chosen.

    It is not where units of all layers compete, nor of query heads, whose keys stay, nor where a device's alignment
    leaves no such counts, which its worker will say.
    """
    parameters, structure = job.parameters, description.structure
    layout = job.output.layout or "uniform"
    if not isinstance(parameters, WidthOptions) or structure is None or not job.sparsity:
        return {}
    if parameters.ranks_layers(layout):
        return {}
    aligned = parameters.model_copy(update={"round_to": parameters.round_to or device.round_to})
    try:
        plan = plan_width_reduction(description, aligned, job.sparsity, layout=layout, at_least=job.target is not None)
    except InvalidSparsity:
        return {}
    splits = (plan, *plan.others)
    kinds = {kind.name: kind for split in splits for kind in split.kinds if split.attention != "query_heads"}
    return {
        name: max(
            (
                counts.units.get(name, kind.units(shape)) / kind.units(shape)
                for split in splits
                for counts, shape in zip(split.counts or (), structure.layers, strict=True)
                if kind.units(shape)
            ),
            default=1.0,
        )
        for name, kind in kinds.items()
    }


def describe_left(description: ModelDescription, job: Recipe, device: DeviceKind) -> ModelDescription:
    """Return the description of what is left, whose layers have the dense model's shapes still.

    As many parameters go as were asked for, less what rounding may leave: half an expert, or half a step of the
    channels, of each layer. Whole layers are counted.
    """
    if job.pattern != STRUCTURED.text or not job.sparsity:
        return description
    block, structure = BlockShape.of(description), description.structure
    removed = round(job.sparsity * description.parameters)
    if isinstance(job.parameters, WidthOptions):
        channel = sum(block.hidden_size * len(group.sizes) for group in block.groups[-2:])
        step = description.layers * channel * (job.parameters.round_to or device.round_to)
    elif isinstance(job.parameters, ExpertOptions):
        step = sum(each.numel // each.experts for each in description.linears if each.experts is not None)
    else:
        step = block.weights
    if isinstance(job.parameters, WidthOptions | ExpertOptions) or structure is None:
        removed -= 0 if job.target is not None else step // 2
    else:
        is_target = job.target is not None
        count = layer_count(structure, parameters=description.parameters, ratio=job.sparsity, at_least=is_target)
        removed = count * structure.parameters // len(structure.layers)
    removed = min(max(0, removed), description.prunable_parameters)
    return description.model_copy(
        update={
            "parameters": description.parameters - removed,
            "prunable_parameters": description.prunable_parameters - removed,
            "bytes": description.bytes - removed * WEIGHT_BYTES[description.dtype],
        }
    )
