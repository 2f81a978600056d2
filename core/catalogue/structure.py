"""What can be removed from a decoder block as a whole, and how many of each to keep for a ratio.

Removable groups are FFN channels (their rows in the layers that make them, their column in the layer that reads them),
heads (a KV head with its contiguous group of query heads, or the same number of query heads in every group) and layers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from core.errors import InvalidParameters, InvalidSparsity

Run = Literal["channel", "query", "key"]
AttentionMode = Literal["kv_groups", "query_heads", "none"]


@dataclass(frozen=True)
class Part:
    """A linear layer or norm that is cut along with a group.

    `side`: its output features with their bias, or its input features. `runs` says what these are, run after run:
    query features, then key features, then value features (which count as key) in a fused projection.
    """

    module: str
    side: Literal["out", "in"]
    runs: tuple[Run, ...]


class LayerShape(BaseModel):
    """One decoder layer. `parameters` counts all of them."""

    channels: int
    heads: int
    kv_heads: int
    parameters: int


class ModelStructure(BaseModel):
    """The removable groups of a model. Parameters are those of one group in one layer; 0 where the family offers no
    removal of heads (`head_parameters`: of a query head alone, `kv_group_parameters`: of a KV head with its group).
    """

    head_dim: int
    heads_divide_hidden: bool
    channel_parameters: int
    head_parameters: int
    kv_group_parameters: int
    layers: list[LayerShape]

    @property
    def removes_heads(self) -> bool:
        return self.kv_group_parameters > 0

    @property
    def parameters(self) -> int:
        """Of all layers."""
        return sum(layer.parameters for layer in self.layers)

    def removable(self, attention: AttentionMode) -> int:
        """Parameters of the first layer's groups."""
        channels = self.layers[0].channels * self.channel_parameters
        return channels if attention == "none" else channels + self.layers[0].kv_heads * self.kv_group_parameters


@dataclass(frozen=True)
class Counts:
    """What every layer keeps, and the parameters one layer loses by it."""

    channels: int
    heads: int
    kv_heads: int
    removed: int


def attention_mode(asked: AttentionMode | None, structure: ModelStructure) -> AttentionMode:
    """The mode a request means: KV groups where there are several, else query heads, none where none can be removed.

    Raises InvalidParameters where heads are asked for that the family cannot give up.
    """
    if asked is None:
        if not structure.removes_heads:
            return "none"
        return "kv_groups" if structure.layers[0].kv_heads > 1 else "query_heads"
    if asked != "none" and not structure.removes_heads:
        raise InvalidParameters(
            "parameters.attention: heads of this family cannot be removed, its head size follows from the hidden size; "
            "use 'none' (channels only)",
            param="parameters.attention",
        )
    return asked


def uniform_counts(
    structure: ModelStructure,
    *,
    hidden_size: int,
    parameters: int,
    ratio: float,
    attention: AttentionMode,
    round_to: int,
) -> Counts:
    """The one shape all layers get so that `ratio` of the model's `parameters` goes.

    Attention and FFN lose the same share of theirs as nearly as whole heads allow, and the channels, a multiple of
    `round_to` of them, make up for the rest: the ratio is met within one aligned group of channels in every layer.
    Raises InvalidSparsity naming the nearest ratio where no count reaches it.
    """
    first = structure.layers[0]
    if any((layer.channels, layer.heads, layer.kv_heads) != (first.channels, first.heads, first.kv_heads)
           for layer in structure.layers):  # fmt: skip
        raise InvalidParameters(
            "output.layout: the layers of this model have different shapes already; use 'per_layer'",
            param="output.layout",
        )
    wanted = ratio * parameters / len(structure.layers)
    options = []
    for heads, kv_heads, lost in _attention_options(structure, first, hidden_size, attention):
        channels = _nearest_width(first.channels, (wanted - lost) / structure.channel_parameters, round_to)
        options.append(
            Counts(channels, heads, kv_heads, lost + (first.channels - channels) * structure.channel_parameters)
        )
    reached = [each for each in options if abs(each.removed - wanted) <= round_to * structure.channel_parameters]
    if not reached:
        nearest = min(options, key=lambda each: abs(each.removed - wanted))
        share = nearest.removed * len(structure.layers) / parameters
        raise InvalidSparsity(
            f"sparsity {ratio:g}: no number of channels (in steps of {round_to}) and heads removes that share of the "
            f"model's parameters without emptying a layer; the nearest is {share:.4f}",
            param="sparsity",
        )
    share = wanted / structure.removable(attention)
    return min(reached, key=lambda each: (abs((first.heads - each.heads) / first.heads - share), -each.heads))


def layer_count(structure: ModelStructure, *, parameters: int, ratio: float) -> int:
    """How many whole layers to remove so that the share of the model's parameters is nearest `ratio`.

    Raises InvalidSparsity where none, or all, would go.
    """
    layers = len(structure.layers)
    each = structure.parameters / layers
    count = round(ratio * parameters / each)
    if ratio > 0 and not 0 < count < layers:
        least, most = each / parameters, (layers - 1) * each / parameters
        raise InvalidSparsity(
            f"sparsity {ratio:g}: whole layers are {least:.4f} of the model's parameters each, from {least:.4f} up to "
            f"{most:.4f} can be removed",
            param="sparsity",
        )
    return count


def _attention_options(
    structure: ModelStructure, layer: LayerShape, hidden_size: int, attention: AttentionMode
) -> Iterator[tuple[int, int, int]]:
    """Numbers of heads and KV heads the family's config accepts, and the parameters a layer loses by them."""
    group = layer.heads // layer.kv_heads
    kept: Iterable[tuple[int, int, int]] = [(layer.heads, layer.kv_heads, 0)]
    if attention == "kv_groups":
        kept = [
            (count * group, count, (layer.kv_heads - count) * structure.kv_group_parameters)
            for count in range(1, layer.kv_heads + 1)
        ]
    elif attention == "query_heads":
        kept = [
            (count * layer.kv_heads, layer.kv_heads, (group - count) * layer.kv_heads * structure.head_parameters)
            for count in range(1, group + 1)
        ]
    for heads, kv_heads, lost in kept:
        if heads == layer.heads or not structure.heads_divide_hidden or hidden_size % heads == 0:
            yield heads, kv_heads, lost


def _nearest_width(channels: int, lost: float, round_to: int) -> int:
    """The width that loses about `lost` channels: a multiple of `round_to`, at least one of it, or all there are."""
    if lost <= 0:
        return channels
    aligned = max(1, round((channels - lost) / round_to)) * round_to
    return min(aligned, channels)
