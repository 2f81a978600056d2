"""The removable units of a model, from its config and the headers of its weights."""

from collections.abc import Mapping
from typing import Any

from core.engine.architectures.architecture import Architecture
from core.engine.architectures.config_part import part_of, with_part
from core.engine.architectures.heterogeneous import layer_settings
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_kind import Block
from core.engine.architectures.unit_registry import BLOCK_KINDS
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry


def read_structure(
    family: Architecture, config: Mapping[str, Any], tensors: Mapping[str, TensorEntry], layers: int
) -> ModelStructure:
    """Return the removable units of every layer; raises UnusableModel where config and tensors do not agree."""
    blocks = [_block(family, tensors, layer) for layer in range(layers)]
    common = part_of(config, family.config_path)
    own = layer_settings(config) or [{}] * layers
    configs = [with_part(config, family.config_path, {**common, **each}) for each in own]
    facts = [kind.read(family, blocks, configs) for kind in BLOCK_KINDS]
    of_model = {name: value for each in facts for name, value in each.of_model.items()}
    shapes = []
    for layer, block in enumerate(blocks):
        sizes = {name: size for each in facts for name, size in each.sizes[layer].items()}
        parameters = sum(entry.numel for entry in block.values())
        shapes.append(LayerShape.model_validate({"parameters": parameters, **sizes}))
    return ModelStructure.model_validate({"layers": shapes, **of_model})


def _block(family: Architecture, tensors: Mapping[str, TensorEntry], layer: int) -> Block:
    prefix = f"{family.blocks}.{layer}."
    return {
        name.removeprefix(prefix): entry
        for name, entry in tensors.items()
        if name.startswith(prefix) and entry.dtype in WEIGHT_DTYPES
    }
