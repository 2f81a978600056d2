"""Groups that can be removed from decoder blocks, and how many of each to keep for a ratio.

Removable groups are FFN channels (their rows in the layers that produce them, their column in the layer that reads
them), heads (a KV head with its contiguous group of query heads, or the same number of query heads in every group) and
layers.
"""

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from core.errors import InvalidParameters, InvalidSparsity

Run = Literal["channel", "query", "key"]
Kind = Literal["heads", "channels"]
AttentionMode = Literal["kv_groups", "query_heads", "none"]


@dataclass(frozen=True)
class UnitAxis:
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
    """Removable groups of a model. Parameters are those of one group in one layer.

    `head_parameters` are of a query head alone, `kv_group_parameters` of a KV head with its group, as large as the
    first layer's; both are 0 where the family offers no removal of heads.
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
        """Return the parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def is_uniform(self) -> bool:
        """Return whether all layers have one shape."""
        return len({(layer.channels, layer.heads, layer.kv_heads) for layer in self.layers}) == 1

    def unit_parameters(self, layer: int, kind: Kind, attention: AttentionMode) -> int:
        """Return the parameters of one group of a layer, heads as `attention` counts them."""
        if kind == "channels":
            return self.channel_parameters
        if attention == "query_heads":
            return self.head_parameters
        first, shape = self.layers[0], self.layers[layer]
        more = shape.heads // shape.kv_heads - first.heads // first.kv_heads
        return self.kv_group_parameters + more * self.head_parameters

    def removable(self, layer: int, attention: AttentionMode) -> int:
        """Return the parameters of all groups of a layer."""
        shape = self.layers[layer]
        heads = 0 if attention == "none" else shape.kv_heads * self.unit_parameters(layer, "heads", "kv_groups")
        return heads + shape.channels * self.channel_parameters


@dataclass(frozen=True)
class LayerCounts:
    """Groups a layer keeps, and the parameters it loses."""

    channels: int
    heads: int
    kv_heads: int
    removed: int

    @classmethod
    def of_all(cls, shape: LayerShape) -> "LayerCounts":
        """Return the counts of a layer that keeps everything."""
        return cls(shape.channels, shape.heads, shape.kv_heads, 0)

    def share_imbalance(self, layer: LayerShape, share: float) -> float:
        """Return the distance of the share of heads removed from `share`, that of the layer's removable parameters."""
        return abs(1 - self.heads / layer.heads - share)


def attention_mode(requested: AttentionMode | None, structure: ModelStructure) -> AttentionMode:
    """Return the attention mode of a request.

    Unset, it means KV groups where there are several, else query heads, and none where none can be removed.

    Raises InvalidParameters where heads are to be removed that the family cannot give up.
    """
    if requested is None:
        if not structure.removes_heads:
            return "none"
        return "kv_groups" if any(layer.kv_heads > 1 for layer in structure.layers) else "query_heads"
    if requested != "none" and not structure.removes_heads:
        raise InvalidParameters(
            "parameters.attention: heads of this family cannot be removed, its head size follows from the hidden size; "
            "use 'none' (channels only)",
            param="parameters.attention",
        )
    return requested


_ROUNDING = 1e-6
"""Parameters of a layer that a ratio, a float, may mean too many or too few."""


def counts_for_ratio(
    structure: ModelStructure,
    *,
    hidden_size: int,
    parameters: int,
    ratio: float,
    attention: AttentionMode,
    round_to: int,
    is_uniform: bool = True,
    protected: Collection[int] = (),
    at_least: bool = False,
) -> tuple[LayerCounts, ...]:
    """Return the groups each layer keeps so that `ratio` of the model's `parameters` is removed.

    Where the result `is_uniform`, every layer keeps the same; else `protected` layers keep all, and the others lose the
    same share.

    In every layer the ratio is met within one aligned group of channels, by the step of its `width_steps` with the
    most even shares of attention and FFN; or, `at_least`, by the first step that removes no less. Raises
    InvalidSparsity naming the nearest ratio where no count reaches it.
    """
    removable = [
        0 if layer in protected else structure.removable(layer, attention) for layer in range(len(structure.layers))
    ]
    share = ratio * parameters / sum(removable)
    slack = round_to * structure.channel_parameters + _ROUNDING
    # A layer with a shape of its own has a config of its own, which nothing checks.
    divide = hidden_size if is_uniform and structure.heads_divide_hidden else 0
    counts: list[LayerCounts] = []
    missed = False
    for layer, (shape, most) in enumerate(zip(structure.layers, removable, strict=True)):
        if not most:
            counts.append(LayerCounts.of_all(shape))
            continue
        wanted = share * most
        ladder = width_steps(structure, layer, divide=divide, attention=attention, round_to=round_to)
        reached = [each for each in ladder if abs(each.removed - wanted) <= slack]
        if at_least:
            reached = [each for each in reached if each.removed >= wanted - _ROUNDING][:1]
        missed = missed or not reached
        counts.append(
            min(reached, key=lambda each: (each.share_imbalance(shape, share), -each.heads, abs(each.removed - wanted)))
            if reached
            else min(ladder, key=lambda each: abs(each.removed - wanted))
        )
    if missed:
        raise unreachable(ratio, sum(each.removed for each in counts) / parameters, round_to)
    return tuple(counts)


def width_steps(
    structure: ModelStructure, layer: int, *, divide: int, attention: AttentionMode, round_to: int
) -> list[LayerCounts]:
    """Return the widths a layer can have, each step removing more than the one before.

    The steps go from nothing removed to all but one aligned group of channels and the fewest heads, each by at most one
    aligned group.

    Attention and FFN lose the same share of theirs as nearly as whole heads allow, and the channels, a multiple of
    `round_to` of them, make up for the rest: a number of heads is used in the range of steps whose share it is nearest
    to, and for one step at either end. The number of heads must divide `divide` (0: any does).
    """
    shape, removable = structure.layers[layer], structure.removable(layer, attention)
    step = round_to * structure.channel_parameters
    aligned = range(shape.channels // round_to * round_to, 0, -round_to)
    widths = [shape.channels, *(width for width in aligned if width < shape.channels)]
    narrowest = (shape.channels - widths[-1]) * structure.channel_parameters
    options = sorted(_attention_options(structure, layer, divide, attention), key=lambda each: each[2])
    begin = 0.0
    ladder: dict[int, LayerCounts] = {}
    for (heads, kv_heads, lost), following in zip(options, [*options[1:], None], strict=True):
        end = math.inf
        if following is not None:
            between = (1 - (heads + following[0]) / (2 * shape.heads)) * removable
            end = min(max(between, following[2]), lost + narrowest)
        for channels in widths:
            removed = lost + (shape.channels - channels) * structure.channel_parameters
            if begin - step < removed < end + step:
                counts = LayerCounts(channels, heads, kv_heads, removed)
                alike = [counts, ladder.get(removed, counts)]
                ladder[removed] = min(alike, key=lambda each: each.share_imbalance(shape, each.removed / removable))
        begin = end
    return [ladder[removed] for removed in sorted(ladder)]


@dataclass(frozen=True)
class GlobalUnitBudget:
    """Global ranking of the groups of all layers that are not `protected`.

    The least important ones are removed until about `removed` parameters, `ratio` of the model's, are gone; channels in
    steps of `round_to`, and of either kind no layer's last. `at_least`: no fewer, else as near as possible.
    """

    ratio: float
    removed: float
    protected: frozenset[int]
    round_to: int
    at_least: bool = False


def global_unit_budget(
    structure: ModelStructure,
    *,
    parameters: int,
    ratio: float,
    attention: AttentionMode,
    round_to: int,
    protected: frozenset[int],
    at_least: bool = False,
) -> GlobalUnitBudget:
    """Return the ranking that removes `ratio` of the `parameters`; raises InvalidSparsity naming the most there is."""
    most = 0
    for layer, shape in enumerate(structure.layers):
        if layer not in protected:
            most += max(shape.channels - round_to, 0) * structure.channel_parameters
            if attention != "none":
                heads = shape.kv_heads if attention == "kv_groups" else shape.heads
                last = 1 if attention == "kv_groups" else shape.kv_heads
                most += (heads - last) * structure.unit_parameters(layer, "heads", attention)
    if ratio * parameters > most:
        raise unreachable(ratio, most / parameters, round_to)
    return GlobalUnitBudget(ratio, ratio * parameters, protected, round_to, at_least)


def unreachable(ratio: float, nearest: float, round_to: int) -> InvalidSparsity:
    """Return the error that no counts remove `ratio` of the model's parameters, the nearest being `nearest`."""
    return InvalidSparsity(
        f"sparsity {ratio:g}: no number of channels (in steps of {round_to}) and heads removes that share of the "
        f"model's parameters without emptying a layer; the nearest is {nearest:.4f}",
        param="sparsity",
    )


def layer_count(structure: ModelStructure, *, parameters: int, ratio: float, at_least: bool = False) -> int:
    """Return how many whole layers to remove for the share of parameters nearest to `ratio`, or, `at_least`, no less.

    Raises InvalidSparsity where none, or all, would be removed.
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
    structure: ModelStructure, layer: int, divide: int, attention: AttentionMode
) -> Iterator[tuple[int, int, int]]:
    """Yield numbers of heads and KV heads, and the parameters they remove; heads must divide `divide` (0: any)."""
    shape = structure.layers[layer]
    group = shape.heads // shape.kv_heads
    kept: Iterable[tuple[int, int, int]] = [(shape.heads, shape.kv_heads, 0)]
    if attention == "kv_groups":
        each = structure.unit_parameters(layer, "heads", attention)
        kept = [(count * group, count, (shape.kv_heads - count) * each) for count in range(1, shape.kv_heads + 1)]
    elif attention == "query_heads":
        each = shape.kv_heads * structure.head_parameters
        kept = [(count * shape.kv_heads, shape.kv_heads, (group - count) * each) for count in range(1, group + 1)]
    for heads, kv_heads, lost in kept:
        if heads == shape.heads or divide % heads == 0:
            yield heads, kv_heads, lost
