"""The removable groups of a model, from its config and the headers of its weights."""

from collections.abc import Mapping
from typing import Any

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.heterogeneous import HEADS_KEY, layer_settings
from core.engine.architectures.unit_counts import LayerShape, ModelStructure, Run, UnitAxis
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry
from core.errors import UnusableModel


def read_structure(
    family: Architecture, config: Mapping[str, Any], tensors: Mapping[str, TensorEntry], layers: int
) -> ModelStructure:
    """Return the removable groups of every layer; raises UnusableModel where config and tensors do not agree."""
    blocks = [_block(family, tensors, layer) for layer in range(layers)]
    heads = config.get(HEADS_KEY, config.get("n_head"))
    if type(heads) is not int or heads < 1:
        raise UnusableModel(f"config.json lacks {HEADS_KEY!r} as a whole number above 0", param="model")
    heads_of = [each.get(HEADS_KEY, heads) for each in layer_settings(config) or [{}] * layers]
    width = _features(family, blocks[0], UnitAxis(family.attention.output, "in", ("query",)))
    if width % heads_of[0]:
        raise UnusableModel(
            f"config.json says {heads_of[0]} heads, which do not divide the {width} features of all", param="model"
        )
    head_dim = width // heads_of[0]
    shapes = [_shape(family, block, count, head_dim) for block, count in zip(blocks, heads_of, strict=True)]
    first = shapes[0]
    group = first.heads // first.kv_heads

    def parameters(parts: tuple[UnitAxis, ...], rows: Mapping[Run, int]) -> int:
        return sum(
            blocks[0][name].numel // _size(family, part, blocks[0][name]) * sum(rows.get(run, 0) for run in part.runs)
            for part in parts
            for name in axis_tensors(part)
            if name in blocks[0]
        )

    return ModelStructure(
        head_dim=head_dim,
        heads_divide_hidden=family.heads_divide_hidden,
        channel_parameters=parameters(family.axes("channels"), {"channel": 1}),
        head_parameters=parameters(family.axes("heads"), {"query": head_dim}),
        kv_group_parameters=parameters(family.axes("heads"), {"query": group * head_dim, "key": head_dim}),
        layers=shapes,
    )


def axis_tensors(part: UnitAxis) -> tuple[str, ...]:
    """Return the tensors of a part, named within the block, that shrink with it: weights, and biases of outputs."""
    return (f"{part.module}.weight", f"{part.module}.bias") if part.side == "out" else (f"{part.module}.weight",)


def axis_dimension(family: Architecture, part: UnitAxis, dimensions: int) -> int:
    """Return the dimension along which the groups of a part lie in its tensor with that many `dimensions`."""
    if dimensions == 1:
        return 0
    return int((part.side == "in") != family.transposed)


def _block(family: Architecture, tensors: Mapping[str, TensorEntry], layer: int) -> dict[str, TensorEntry]:
    prefix = f"{family.blocks}.{layer}."
    return {
        name.removeprefix(prefix): entry
        for name, entry in tensors.items()
        if name.startswith(prefix) and entry.dtype in WEIGHT_DTYPES
    }


def _shape(family: Architecture, block: Mapping[str, TensorEntry], heads: int, head_dim: int) -> LayerShape:
    kv_heads = heads
    for part in family.axes("heads"):
        keys = part.runs.count("key")
        if keys:
            rows = _features(family, block, part) - part.runs.count("query") * heads * head_dim
            kv_heads = rows // (keys * head_dim)
            break
    if kv_heads < 1 or heads % kv_heads:
        raise UnusableModel(f"{heads} heads cannot share {kv_heads} key and value heads evenly", param="model")
    return LayerShape(
        channels=_features(family, block, family.axes("channels")[-1]),
        heads=heads,
        kv_heads=kv_heads,
        parameters=sum(entry.numel for entry in block.values()),
    )


def _features(family: Architecture, block: Mapping[str, TensorEntry], part: UnitAxis) -> int:
    return _size(family, part, block[f"{part.module}.weight"])


def _size(family: Architecture, part: UnitAxis, entry: TensorEntry) -> int:
    size = entry.shape[axis_dimension(family, part, len(entry.shape))] if len(entry.shape) in (1, 2) else 0
    if size == 0:
        raise UnusableModel(
            f"{entry.name} has shape {list(entry.shape)}, one or two dimensions are needed", param="model"
        )
    return size
