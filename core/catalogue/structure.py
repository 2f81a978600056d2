"""What can be removed from a decoder block as a whole, and how many of each to keep for a ratio.

Removable groups are FFN channels (their rows in the layers that make them, their column in the layer that reads them),
heads (a KV head with its contiguous group of query heads, or the same number of query heads in every group) and layers.
"""

import math
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


@dataclass(frozen=True)
class Counts:
    """What every layer keeps, and the parameters one layer loses by it."""

    channels: int
    heads: int
    kv_heads: int
    removed: int

    def unevenness(self, layer: LayerShape, share: float) -> float:
        """How far the share of heads that goes is from `share`, that of the layer's removable parameters."""
        return abs(1 - self.heads / layer.heads - share)


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
    at_least: bool = False,
) -> Counts:
    """The one shape all layers get so that `ratio` of the model's `parameters` goes, within one aligned group of
    channels in every layer: the step of `uniform_ladder` that takes the most even shares of attention and FFN; or,
    `at_least`, the first one that removes no less.

    Raises InvalidSparsity naming the nearest ratio where no count reaches it.
    """
    first, layers = structure.layers[0], len(structure.layers)
    wanted = ratio * parameters / layers
    ladder = uniform_ladder(structure, hidden_size=hidden_size, attention=attention, round_to=round_to)
    slack = round_to * structure.channel_parameters + _ROUNDING
    reached = [each for each in ladder if abs(each.removed - wanted) <= slack]
    if at_least:
        reached = [each for each in reached if each.removed >= wanted - _ROUNDING][:1]
    if not reached:
        nearest = min(ladder, key=lambda each: abs(each.removed - wanted))
        raise InvalidSparsity(
            f"sparsity {ratio:g}: no number of channels (in steps of {round_to}) and heads removes that share of the "
            f"model's parameters without emptying a layer; the nearest is {nearest.removed * layers / parameters:.4f}",
            param="sparsity",
        )
    share = wanted / _removable(structure, 0, attention)
    return min(reached, key=lambda each: (each.unevenness(first, share), -each.heads, abs(each.removed - wanted)))


_ROUNDING = 1e-6
"""Parameters of a layer that a ratio, a float, may mean too many or too few."""


def uniform_ladder(
    structure: ModelStructure, *, hidden_size: int, attention: AttentionMode, round_to: int
) -> list[Counts]:
    """`layer_ladder` of every layer; raises InvalidParameters where the layers have different shapes."""
    first = structure.layers[0]
    if any((layer.channels, layer.heads, layer.kv_heads) != (first.channels, first.heads, first.kv_heads)
           for layer in structure.layers):  # fmt: skip
        raise InvalidParameters(
            "output.layout: the layers of this model have different shapes already; use 'per_layer'",
            param="output.layout",
        )
    return layer_ladder(structure, 0, hidden_size=hidden_size, attention=attention, round_to=round_to)


def layer_ladder(
    structure: ModelStructure, layer: int, *, hidden_size: int, attention: AttentionMode, round_to: int
) -> list[Counts]:
    """What a layer can keep, each step removing more than the one before: from nothing to all but one aligned group of
    channels and the fewest heads, in steps of at most one aligned group.

    Attention and FFN lose the same share of theirs as nearly as whole heads allow, and the channels, a multiple of
    `round_to` of them, make up for the rest: a number of heads has the stretch of the ladder whose share it is nearest
    to, and a step at either end.
    """
    shape, removable = structure.layers[layer], _removable(structure, layer, attention)
    step = round_to * structure.channel_parameters
    aligned = range(shape.channels // round_to * round_to, 0, -round_to)
    widths = [shape.channels, *(width for width in aligned if width < shape.channels)]
    narrowest = (shape.channels - widths[-1]) * structure.channel_parameters
    options = sorted(_attention_options(structure, shape, hidden_size, attention), key=lambda each: each[2])
    begin = 0.0
    ladder: dict[int, Counts] = {}
    for (heads, kv_heads, lost), following in zip(options, [*options[1:], None], strict=True):
        end = math.inf
        if following is not None:
            between = (1 - (heads + following[0]) / (2 * shape.heads)) * removable
            end = min(max(between, following[2]), lost + narrowest)
        for channels in widths:
            removed = lost + (shape.channels - channels) * structure.channel_parameters
            if begin - step < removed < end + step:
                counts = Counts(channels, heads, kv_heads, removed)
                alike = [counts, ladder.get(removed, counts)]
                ladder[removed] = min(alike, key=lambda each: each.unevenness(shape, each.removed / removable))
        begin = end
    return [ladder[removed] for removed in sorted(ladder)]


def _removable(structure: ModelStructure, layer: int, attention: AttentionMode) -> int:
    """Parameters of all groups of a layer."""
    shape = structure.layers[layer]
    heads = 0 if attention == "none" else shape.kv_heads * structure.kv_group_parameters
    return heads + shape.channels * structure.channel_parameters


def layer_count(structure: ModelStructure, *, parameters: int, ratio: float, at_least: bool = False) -> int:
    """How many whole layers to remove so that the share of the model's parameters is nearest `ratio`, or, `at_least`,
    no less.

    Raises InvalidSparsity where none, or all, would go.
    """
    layers = len(structure.layers)
    each = structure.parameters / layers
    wanted = ratio * parameters
    count = math.ceil((wanted - _ROUNDING) / each) if at_least else round(wanted / each)
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
