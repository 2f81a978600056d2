"""Kinds of units that can be removed from a decoder block: heads, channels and experts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from core.engine.architectures.architecture import (
    CHANNELS_KIND,
    EXPERTS_KIND,
    HEAD_DIM_KEY,
    HEADS_KEY,
    KV_HEADS_KEY,
    Architecture,
    ExpertChannels,
    Experts,
    UnitAxis,
)
from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.checkpoints.safetensors_header import TensorEntry
from secateur_wire.errors import InvalidParameters, UnusableModel

KindName: TypeAlias = str


AttentionMode = Literal["kv_groups", "query_heads", "none"]
"""Unit by which a job removes attention heads."""


AttentionChoice = Literal["auto", "kv_groups", "query_heads", "none"]
"""Unit by which a request removes heads; with auto, a comparison of costs splits the removal with the FFN."""


Block: TypeAlias = Mapping[str, TensorEntry]
"""Tensors of a block, by their names within it."""


class KindFacts(NamedTuple):
    """Facts of a kind of unit in a model: the facts of all layers, and the sizes of each layer."""

    of_model: dict[str, bool | int]
    sizes: list[dict[str, int]]


@dataclass(frozen=True)
class _Kind:
    """Kind of unit within decoder blocks.

    `name` is its name in scores, counts and reports, and `size` that of the number of its units among a layer's sizes.
    Units with `is_fine` are so small that they go in aligned steps and make up the difference that units of other kinds
    leave.
    """

    name: KindName
    size: str
    is_fine: bool = False

    def units(self, shape: LayerShape) -> int:
        """Return the number of units in a layer, in each of its sets."""
        return shape.sizes.get(self.size, 0)

    def parts(self, shape: LayerShape) -> int:
        """Return the number of equal groups of a layer's units that must each keep the same number."""
        return 1

    def sets(self, shape: LayerShape) -> int:
        """Return the number of sets of units in a layer that each keep the same number: one set for each expert."""
        return 1

    def sizes(self, shape: LayerShape, units: int) -> dict[str, int]:
        """Return the sizes of a layer of that shape when it keeps this many units."""
        return {self.size: units}

    def accepts(self, structure: ModelStructure, sizes: Mapping[str, int], hidden_size: int) -> bool:
        """Return True if a config of that hidden size accepts layers of these sizes."""
        return True

    def fixed_settings(self, family: Architecture, structure: ModelStructure) -> dict[str, int]:
        """Return the settings that a config needs once such units may have been removed."""
        return {}


def axis_tensors(axis: UnitAxis) -> tuple[str, ...]:
    """Return the tensors of an axis, by their names within the block: weights, and biases of outputs."""
    if axis.side == "in":
        return (f"{axis.module}.weight",)
    return (f"{axis.module}.weight", f"{axis.module}.bias", axis.module)


def run_name(run: str) -> tuple[str, int]:
    """Return the name of a run's features, and the factor of their number per unit."""
    name, _, factor = run.partition(":")
    return name, int(factor or 1)


def axis_dimension(family: Architecture, axis: UnitAxis, dimensions: int) -> int:
    """Return the dimension of an axis in its tensor, which has that many `dimensions`."""
    if dimensions == 1:
        return 0
    return int((axis.side == "in") != family.transposed)


def features(family: Architecture, block: Block, axis: UnitAxis) -> int:
    """Return the size of a block's tensor along an axis; raises UnusableModel where it is no vector or matrix."""
    return _size(family, axis, block[f"{axis.module}.weight"])


def axis_parameters(family: Architecture, block: Block, axes: Sequence[UnitAxis], rows: Mapping[str, int]) -> int:
    """Return the parameters of one unit, summed over all its axes; `rows` are its features in each run."""
    return sum(
        block[name].numel
        // _size(family, axis, block[name])
        * sum(rows.get(name, 0) * factor for name, factor in map(run_name, axis.runs))
        for axis in axes
        for name in axis_tensors(axis)
        if name in block
    )


def _size(family: Architecture, axis: UnitAxis, entry: TensorEntry) -> int:
    size = entry.shape[axis_dimension(family, axis, len(entry.shape))] if len(entry.shape) in (1, 2) else 0
    if size == 0:
        raise UnusableModel(
            f"{entry.name} has shape {list(entry.shape)}, one or two dimensions are needed", param="model"
        )
    return size


_FACTS: Final = ("head_dim", "heads_divide_hidden", "head_parameters", "kv_group_parameters")
_NO_HEADS: Final = {"heads": 0, "kv_heads": 0}


@dataclass(frozen=True)
class Heads(_Kind):
    """Heads of the attention: KV heads with their groups of query heads, or query heads, equal in number by KV head.

    Facts of the model: `head_parameters` counts the parameters of one query head, `kv_group_parameters` those of a KV
    head with its group, sized as in the first layer with heads; both are 0 where the architecture does not offer the
    removal of heads. An axis has runs of query features, then key features, then value features (which count as keys)
    in a fused projection. A run named `head` or `kv_head` has one feature per head; other runs have the head size.
    """

    @property
    def _is_group(self) -> bool:
        return self.size == "kv_heads"

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
                "head_parameters": axis_parameters(family, blocks[first], axes, {"query": head_dim, "head": 1}),
                "kv_group_parameters": axis_parameters(family, blocks[first], axes, rows),
            },
            [
                {"heads": heads[layer], "kv_heads": kv_heads[layer]} if layer in heads else dict(_NO_HEADS)
                for layer in range(len(blocks))
            ],
        )

    def settings(self, family: Architecture) -> Mapping[str, tuple[str, int]]:
        keys = {"heads": HEADS_KEY, "kv_heads": KV_HEADS_KEY}
        return {family.config_keys.get(key, key): (size, 1) for size, key in keys.items()}

    def parts(self, shape: LayerShape) -> int:
        return 1 if self._is_group else shape.sizes["kv_heads"]

    def parameters(self, structure: ModelStructure, layer: int) -> int:
        if not self._is_group:
            return structure.facts["head_parameters"]
        first = next((each for each in structure.layers if each.sizes["heads"]), structure.layers[0])
        more = _group(structure.layers[layer]) - _group(first)
        return structure.facts["kv_group_parameters"] + more * structure.facts["head_parameters"]

    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        shape, head_dim = structure.layers[layer], structure.facts["head_dim"]
        group, kv_heads = _group(shape), shape.sizes["kv_heads"]
        if self._is_group:
            return {"query": (group * head_dim, 0), "key": (head_dim, 0), "head": (group, 0), "kv_head": (1, 0)}
        return {"query": (head_dim, 0), "key": (0, kv_heads * head_dim), "head": (1, 0), "kv_head": (0, kv_heads)}

    def sizes(self, shape: LayerShape, units: int) -> dict[str, int]:
        if self._is_group:
            return {"heads": units * _group(shape), "kv_heads": units}
        return {"heads": units, "kv_heads": shape.sizes["kv_heads"]}

    def accepts(self, structure: ModelStructure, sizes: Mapping[str, int], hidden_size: int) -> bool:
        heads = sizes.get("heads", 0)
        return not (structure.facts["heads_divide_hidden"] and heads) or hidden_size % heads == 0

    def fixed_settings(self, family: Architecture, structure: ModelStructure) -> dict[str, int]:
        return {family.config_keys.get(HEAD_DIM_KEY, HEAD_DIM_KEY): structure.facts["head_dim"]}


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


@dataclass(frozen=True)
class Channels(_Kind):
    """Channels of the FFN: their rows in the layers that produce them, and their column in the layer that reads them.

    In a mixture, channels are those of each expert: a layer has `expert_sets` sets of channels in the stacks of its
    experts, and `linear_sets` in the linear layers beside the experts whose width follows the same setting. Facts of
    the model: `channel_parameters` counts the parameters of one channel in linear layers, `expert_channel_parameters`
    in the stacks.
    """

    def read(self, family: Architecture, blocks: Sequence[Block], configs: Sequence[Mapping[str, Any]]) -> KindFacts:
        axes = family.axes(self.name)
        if axes and family.experts is not None and family.experts.channels is not None:
            return _of_experts(family, family.experts, family.experts.channels, blocks)
        channels = [
            features(family, block, axes[-1]) if axes and f"{axes[-1].module}.weight" in block else 0
            for block in blocks
        ]
        first = next((layer for layer, number in enumerate(channels) if number), 0)
        return KindFacts(
            {"channel_parameters": axis_parameters(family, blocks[first], axes, {"channel": 1})},
            [{"channels": number} for number in channels],
        )

    def settings(self, family: Architecture) -> Mapping[str, tuple[str, int]]:
        return {family.width_key: (self.size, family.width_factor)}

    def sets(self, shape: LayerShape) -> int:
        return shape.sizes.get("expert_sets", 0) + shape.sizes.get("linear_sets", 1)

    def parameters(self, structure: ModelStructure, layer: int) -> int:
        sizes, facts = structure.layers[layer].sizes, structure.facts
        in_stacks = sizes.get("expert_sets", 0) * facts.get("expert_channel_parameters", 0)
        return in_stacks + sizes.get("linear_sets", 1) * facts["channel_parameters"]

    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        return {"channel": (1, 0)}

    def fixed_settings(self, family: Architecture, structure: ModelStructure) -> dict[str, int]:
        return dict(family.width_settings)


def _of_experts(family: Architecture, experts: Experts, channels: ExpertChannels, blocks: Sequence[Block]) -> KindFacts:
    """Return the facts of a mixture; raises UnusableModel where its blocks do not have the expected shapes."""
    giving = experts.parameter(experts.giving)
    facts = {"expert_channel_parameters": 0, "channel_parameters": 0}
    sizes = []
    for block in blocks:
        widths: set[int] = set()
        in_stacks = in_linears = 0
        if giving in block:
            in_stacks, *matrix = block[giving].shape
            widths.add(matrix[0 if experts.transposed else 1])
            names = [name for axis in channels.stacks for name in axis_tensors(axis) if name in block]
            of_all = sum(block[name].numel for name in names)
            facts["expert_channel_parameters"] = of_all // (in_stacks * max(widths))
        linear = channels.linear
        if linear is not None and f"{linear.axes[-1].module}.weight" in block:
            in_linears = linear.sets
            widths.add(features(family, block, linear.axes[-1]) // linear.sets)
            facts["channel_parameters"] = axis_parameters(family, block, linear.axes, {"channel": 1})
        if len(widths) > 1:
            raise UnusableModel(f"experts of {sorted(widths)} channels in one block", param="model")
        width = widths.pop() if widths else 0
        sizes.append({"channels": width, "expert_sets": in_stacks, "linear_sets": in_linears})
    return KindFacts({**facts}, sizes)


@dataclass(frozen=True)
class ExpertUnits(_Kind):
    """Whole experts of a mixture: their matrices, and their entries in the router's weights and biases.

    Facts of a model whose experts can be removed: `expert_parameters` counts the parameters of one expert. A layer has
    a number of `experts`, in `expert_groups` that each lose the same number.
    """

    def read(self, family: Architecture, blocks: Sequence[Block], configs: Sequence[Mapping[str, Any]]) -> KindFacts:
        experts = family.experts
        if experts is None or experts.routing is None:
            return KindFacts({}, [{} for _ in blocks])
        stack, rows, groups = experts.parameter(experts.giving), experts.routing.rows, experts.routing.groups
        counts = [block[stack].shape[0] if stack in block else 0 for block in blocks]
        first = next((layer for layer, number in enumerate(counts) if number), None)
        parameters = 0
        if first is not None:
            parameters = sum(blocks[first][name].numel // counts[first] for name in rows if name in blocks[first])
        return KindFacts(
            {"expert_parameters": parameters},
            [{"experts": number, "expert_groups": groups if number else 0} for number in counts],
        )

    def settings(self, family: Architecture) -> Mapping[str, tuple[str, int]]:
        routing = None if family.experts is None else family.experts.routing
        return {} if routing is None else {routing.count: (self.size, 1)}

    def parts(self, shape: LayerShape) -> int:
        return shape.sizes.get("expert_groups", 1)

    def parameters(self, structure: ModelStructure, layer: int) -> int:
        return structure.facts["expert_parameters"]

    def runs(self, structure: ModelStructure, layer: int) -> Mapping[str, tuple[int, int]]:
        return {"expert": (1, 0)}


UnitKind: TypeAlias = Heads | Channels | ExpertUnits
"""Kind of unit. Each has, beside what `_Kind` has:

- `read`: the facts of a model from each layer's tensors and config; raises UnusableModel;
- `settings`: the config's names that these units determine, each with the size it counts and its factor;
- `parameters`: the parameters of one unit of a layer, summed over the layer's sets;
- `runs`: for each run of an axis, the features of one unit, and the features that no unit owns.
"""
_KV_GROUPS: Final = Heads("heads", "kv_heads")
_QUERY_HEADS: Final = Heads("heads", "heads")
_CHANNELS: Final = Channels(CHANNELS_KIND, "channels", is_fine=True)
EXPERT_UNITS: Final = ExpertUnits(EXPERTS_KIND, "experts")
"""Kind of unit for a whole expert of a mixture. Only methods for experts remove it."""
BLOCK_KINDS: Final[tuple[UnitKind, ...]] = (_KV_GROUPS, _CHANNELS, EXPERT_UNITS)
"""One kind of each name, in the order of a layer, for facts that do not depend on how its units are counted."""


def removed_kinds(attention: AttentionMode) -> tuple[UnitKind, ...]:
    """Return the kinds of units that a job with that attention mode removes, in the order of a layer."""
    heads = {"kv_groups": (_KV_GROUPS,), "query_heads": (_QUERY_HEADS,), "none": ()}
    return (*heads[attention], _CHANNELS)


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
