"""Heads of the attention: KV heads with their contiguous groups of query heads, or equal numbers of query heads.

Facts of the model: `head_parameters` counts the parameters of one query head, `kv_group_parameters` those of a KV head
with its group, sized as in the first layer with heads; both are 0 where the architecture does not offer the removal of
heads. An axis has runs of query features, then key features, then value features (which count as keys) in a fused
projection. A run named `head` or `kv_head` has one feature per head; other runs have the head size.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.engine.architectures.architecture import HEAD_DIM_KEY, HEADS_KEY, KV_HEADS_KEY, Architecture
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_axis import UnitAxis
from core.engine.architectures.unit_kind import (
    AttentionChoice,
    AttentionMode,
    Block,
    KindFacts,
    UnitKind,
    axis_parameters,
    features,
    run_name,
)
from secateur_wire.errors import InvalidParameters, UnusableModel

_FACTS: Final = ("head_dim", "heads_divide_hidden", "head_parameters", "kv_group_parameters")
_NO_HEADS: Final = {"heads": 0, "kv_heads": 0}


class _Heads(UnitKind):
    """Base of the two ways to count heads."""

    name = "heads"
    rank = 10

    def read(self, family: Architecture, blocks: Sequence[Block], configs: Sequence[Mapping[str, Any]]) -> KindFacts:
        sublayer = family.sublayer_of(self.name)
        with_heads = [layer for layer, block in enumerate(blocks) if sublayer and f"{sublayer.output}.weight" in block]
        if sublayer is None or not with_heads:
            return KindFacts(dict.fromkeys(_FACTS, 0), [dict(_NO_HEADS) for _ in blocks])
        first, axes = with_heads[0], family.axes(self.name)
        heads = {layer: family.config_value(configs[layer], HEADS_KEY) for layer in with_heads}
        if not all(type(each) is int and each > 0 for each in heads.values()):
            raise UnusableModel(f"config.json lacks {HEADS_KEY!r} as a whole number above 0", param="model")
        width = features(family, blocks[first], UnitAxis(sublayer.output, "in", ("query",)))
        if width % heads[first]:
            raise UnusableModel(
                f"config.json says {heads[first]} heads, which do not divide the {width} features of all", param="model"
            )
        head_dim = width // heads[first]
        kv_heads = {layer: _kv_heads(family, blocks[layer], each, head_dim) for layer, each in heads.items()}
        group = heads[first] // kv_heads[first]
        rows = {"query": group * head_dim, "key": head_dim, "head": group, "kv_head": 1}
        return KindFacts(
            {
                "head_dim": head_dim,
                "heads_divide_hidden": family.heads_divide_hidden,
                "head_parameters": axis_parameters(
                    family, blocks[first], family.axes(self.name), {"query": head_dim, "head": 1}
                ),
                "kv_group_parameters": axis_parameters(family, blocks[first], axes, rows),
            },
            [
                {"heads": heads[layer], "kv_heads": kv_heads[layer]} if layer in heads else dict(_NO_HEADS)
                for layer in range(len(blocks))
            ],
        )

    def settings(self, family: Architecture) -> Mapping[str, str]:
        keys = {"heads": HEADS_KEY, "kv_heads": KV_HEADS_KEY}
        return {size: family.config_keys.get(key, key) for size, key in keys.items()}

    def accepts(self, structure: ModelStructure, sizes: Mapping[str, int], hidden_size: int) -> bool:
        heads = sizes.get("heads", 0)
        return not (structure.facts["heads_divide_hidden"] and heads) or hidden_size % heads == 0

    def fixed_settings(self, family: Architecture, structure: ModelStructure) -> dict[str, int]:
        return {family.config_keys.get(HEAD_DIM_KEY, HEAD_DIM_KEY): structure.facts["head_dim"]}


class KVGroups(_Heads):
    """KV head with its group of query heads."""

    def is_removed(self, attention: AttentionMode) -> bool:
        return attention == "kv_groups"

    def units(self, shape: LayerShape) -> int:
        return shape.sizes["kv_heads"]

    def parameters(self, structure: ModelStructure, layer: int) -> int:
        first = next((each for each in structure.layers if each.sizes["heads"]), structure.layers[0])
        more = _group(structure.layers[layer]) - _group(first)
        return structure.facts["kv_group_parameters"] + more * structure.facts["head_parameters"]

    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        head_dim = structure.facts["head_dim"]
        group = _group(structure.layers[layer])
        return {"query": (group * head_dim, 0), "key": (head_dim, 0), "head": (group, 0), "kv_head": (1, 0)}

    def sizes(self, shape: LayerShape, units: int) -> dict[str, int]:
        return {"heads": units * _group(shape), "kv_heads": units}


class QueryHeads(_Heads):
    """Query head; every KV head keeps the same number of query heads."""

    def is_removed(self, attention: AttentionMode) -> bool:
        return attention == "query_heads"

    def units(self, shape: LayerShape) -> int:
        return shape.sizes["heads"]

    def parameters(self, structure: ModelStructure, layer: int) -> int:
        return structure.facts["head_parameters"]

    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        head_dim = structure.facts["head_dim"]
        kv_heads = structure.layers[layer].sizes["kv_heads"]
        return {"query": (head_dim, 0), "key": (0, kv_heads * head_dim), "head": (1, 0), "kv_head": (0, kv_heads)}

    def sizes(self, shape: LayerShape, units: int) -> dict[str, int]:
        return {"heads": units, "kv_heads": shape.sizes["kv_heads"]}

    def parts(self, shape: LayerShape) -> int:
        return shape.sizes["kv_heads"]

    def all_parameters(self, structure: ModelStructure, layer: int) -> int:
        """Return the parameters of the attention's heads, including keys and values."""
        return KVGroups().all_parameters(structure, layer)


KINDS: Final = (KVGroups(), QueryHeads())


def attention_mode(requested: AttentionChoice, structure: ModelStructure) -> AttentionMode:
    """Return the unit by which heads are removed.

    `auto` means KV groups where there are several, else query heads, and none where no head can be removed. Raises
    InvalidParameters where the request removes heads that the family cannot give up.
    """
    removes_heads = structure.facts["kv_group_parameters"] > 0
    if requested == "auto":
        if not removes_heads:
            return "none"
        return "kv_groups" if any(layer.sizes["kv_heads"] > 1 for layer in structure.layers) else "query_heads"
    if requested != "none" and not removes_heads:
        raise InvalidParameters(
            "parameters.attention: heads of this family cannot be removed, its head size follows from the hidden size; "
            "use 'none' (channels only)",
            param="parameters.attention",
        )
    return requested


def _group(shape: LayerShape) -> int:
    """Return the number of query heads that share a KV head; 0 in a layer without heads."""
    return shape.sizes["heads"] // max(shape.sizes["kv_heads"], 1)


def _kv_heads(family: Architecture, block: Block, heads: int, head_dim: int) -> int:
    """Return the number of KV heads of a layer, from its first axis with keys; raises UnusableModel."""
    of_query, of_key = {"query": head_dim, "head": 1}, {"key": head_dim, "kv_head": 1}
    kv_heads = heads
    for axis in family.axes("heads"):
        runs = [run_name(run) for run in axis.runs]
        key = sum(of_key.get(name, 0) * factor for name, factor in runs)
        if key:
            query = sum(of_query.get(name, 0) * factor for name, factor in runs)
            kv_heads = (features(family, block, axis) - query * heads) // key
            break
    if kv_heads < 1 or heads % kv_heads:
        raise UnusableModel(f"{heads} heads cannot share {kv_heads} key and value heads evenly", param="model")
    return kv_heads
