"""Models of a given shape with random weights, in the family of an opened folder: of the same speed as pruned ones."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.engine.architectures.config import part_of, with_part
from core.engine.architectures.description import require_structure
from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.units import removed_kinds
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.latency.variants import BlockVariant, ModelShape
from core.engine.models.experts import stored_tensors
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import build_model
from core.engine.models.tensors import write_tensors
from core.engine.pruning.units.removal import UnitCounts
from core.engine.pruning.units.removal_config import config_after_removal
from secateur_wire.base import JsonObject

_KINDS: Final = removed_kinds("kv_groups")
_TOKEN_IDS: Final = ("bos_token_id", "eos_token_id", "pad_token_id")


class _LeftOut(nn.Module):
    """Nothing, in the place of an attention or an FFN: 0 is added to the residual stream."""

    def __init__(self, *, is_attention: bool) -> None:
        super().__init__()
        self._is_attention = is_attention

    def forward(self, *_: Any, **__: Any) -> Any:
        return (0.0, None) if self._is_attention else 0.0


def random_model(folder: ModelFolder, shape: ModelShape, dtype: torch.dtype) -> PreTrainedModel:
    """Return a model of this shape in main memory, in evaluation mode.

    Attention and FFN that a layer leaves out are not computed, nor are their norms.
    """
    torch.manual_seed(0)
    model: PreTrainedModel = build_model(_reshaped(folder, shape), dtype).eval()
    blocks: Any = model.get_submodule(folder.family.blocks)
    attention = folder.family.sublayer_of("heads")
    assert attention is not None
    computed = 0
    for block, variant in zip(blocks, present_layers(shape), strict=True):
        for sublayer in folder.family.sublayers:
            name, is_attention = sublayer.output.rpartition(".")[0], sublayer is attention
            if is_attention and variant.kv_groups:
                block.get_submodule(name).layer_idx = computed  # the cache has a place for each attention
                computed += 1
            elif not (variant.kv_groups if is_attention else variant.ffn_width):
                block.set_submodule(name, _LeftOut(is_attention=is_attention))
                block.set_submodule(sublayer.norm, nn.Identity())
    return model


def random_folder(folder: ModelFolder, shape: ModelShape, target: Path) -> ModelFolder:
    """Write a model of this shape into a folder, and open it; the tensors of parts left out are in it, at full size."""
    complete = ModelShape(tuple(_complete(folder, each) for each in present_layers(shape)), shape.vocabulary)
    model, reshaped = random_model(folder, complete, torch.float32), _reshaped(folder, shape)
    family = folder.family
    tied = {f"{family.head}.weight"} if folder.description.tied_embeddings else set()
    tensors: Mapping[str, Tensor] = stored_tensors(
        family, {name: each for name, each in model.state_dict().items() if name not in tied}
    )
    target.mkdir()
    weights = target / "random.tensors"
    write_tensors(weights, dict(tensors))
    write_checkpoint(
        [weights], [], folder.path, target, config=reshaped.raw_config, discovered=folder.description.discovered
    )
    weights.unlink()
    return open_model(target, own_artifact=True, discovered=folder.description.discovered)


def present_layers(shape: ModelShape) -> list[BlockVariant]:
    """Return the variants of the layers that are there at all."""
    return [each for each in shape.layers if any(each)]


def _complete(folder: ModelFolder, variant: BlockVariant) -> BlockVariant:
    first = require_structure(folder.description).layers[0].sizes
    return BlockVariant(variant.kv_groups or first["kv_heads"], variant.ffn_width or first["channels"])


def _reshaped(folder: ModelFolder, shape: ModelShape) -> ModelFolder:
    """Return the folder with the config of a model of this shape, in which parts that are left out have full size."""
    structure = require_structure(folder.description)
    layers = [_complete(folder, each) for each in present_layers(shape)]
    source: ModelStructure = structure.of_layers([0] * len(layers))
    counts = {
        layer: LayerCounts({"heads": each.kv_groups, "channels": each.ffn_width}, 0)
        for layer, each in enumerate(layers)
    }
    raw = config_after_removal(folder, source, _KINDS, UnitCounts(layers=counts))
    raw = _with_vocabulary(folder, raw, shape.vocabulary)
    return replace(folder, raw_config=raw, config=folder.config_of(raw))


def _with_vocabulary(folder: ModelFolder, raw: JsonObject, rows: int) -> JsonObject:
    family, settings = folder.family, part_of(raw, folder.family.config_path)
    counts: dict[str, Any] = {}
    for name in family.vocabulary_settings:
        counts[family.config_key(raw, name)] = min(rows, family.config_value(raw, name))
    ids = {name: None for name in _TOKEN_IDS if name in settings and settings[name] is not None}
    return with_part(raw, family.config_path, {**settings, **counts, **ids})
