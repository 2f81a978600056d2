"""Global ranking of the groups of all layers: how many of each layer's are among the least important of the model.

A group's importance is taken per parameter it frees, and within each layer divided by the root mean square over the
layer's parameters, heads and channels together (Molchanov 2016, arXiv:1611.06440, eq. 7, divides by the L2 norm, which
is the same where layers have as many groups): layers are comparable whatever the scale of their gradients, and a head
is comparable with the channels it competes with.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from core.engine.architectures.unit_counts import (
    AttentionMode,
    GlobalUnitBudget,
    Kind,
    LayerCounts,
    ModelStructure,
    unreachable,
)

_ROUNDING = 0.5
"""Parameters by which the target may be off, because the ratio is a float."""


@dataclass(frozen=True)
class _Step:
    """Groups of a layer that are removed together, after those of lower importance.

    These are aligned channels, or a head of each KV group. `importance` is their mean.
    """

    layer: int
    kind: Kind
    groups: int
    parameters: int
    importance: float


def ranked_counts(
    structure: ModelStructure,
    scores: Sequence[Mapping[Kind, Tensor]],
    attention: AttentionMode,
    ranking: GlobalUnitBudget,
) -> tuple[LayerCounts, ...]:
    """Return the counts each layer keeps, from the score of each of its groups, by kind: [units].

    Raises InvalidSparsity where no counts meet the ranking.
    """
    comparable = [_per_parameter(structure, layer, kinds, attention) for layer, kinds in enumerate(scores)]
    return threshold_counts(structure, comparable, attention, ranking)


def threshold_counts(
    structure: ModelStructure,
    importances: Sequence[Mapping[Kind, Tensor]],
    attention: AttentionMode,
    ranking: GlobalUnitBudget,
) -> tuple[LayerCounts, ...]:
    """Return the counts each layer keeps, from importances that are comparable across layers and kinds: [units].

    Heads are removed as far as they are among the lowest of all steps that make up `ranking.removed`; channels make up
    the rest, so that the entire model meets it within half a step of channels, or, with `at_least`, within one. Raises
    InvalidSparsity where it cannot.
    """
    steps = [
        step
        for layer, kinds in enumerate(importances)
        if layer not in ranking.protected
        for step in _steps(structure, layer, kinds, attention, ranking.round_to)
    ]
    steps.sort(key=lambda step: step.importance)
    wanted = ranking.removed
    taken: list[_Step] = []
    total = 0
    for step in steps:
        if total >= wanted:
            break
        total += step.parameters
        if step.kind == "heads":
            taken.append(step)
    while (left := wanted - sum(step.parameters for step in taken)) < -structure.channel_parameters / 2:
        taken.pop()
    for step in steps:
        if step.kind == "channels" and left > (_ROUNDING if ranking.at_least else step.parameters / 2):
            left -= step.parameters
            taken.append(step)
        elif step.kind == "channels":
            break
    if left > (_ROUNDING if ranking.at_least else ranking.round_to * structure.channel_parameters):
        reached = ranking.ratio * (1 - left / wanted)
        raise unreachable(ranking.ratio, reached, ranking.round_to)
    return tuple(_without(structure, layer, taken, attention) for layer in range(len(structure.layers)))


def _per_parameter(
    structure: ModelStructure, layer: int, scores: Mapping[Kind, Tensor], attention: AttentionMode
) -> dict[Kind, Tensor]:
    """Return a layer's scores per parameter that goes, divided by their root mean square over its parameters."""
    sizes = {kind: structure.unit_parameters(layer, kind, attention) for kind in scores}
    per_parameter = {kind: score_U.double() / sizes[kind] for kind, score_U in scores.items()}
    squares = sum(sizes[kind] * float(each.square().sum()) for kind, each in per_parameter.items())
    scale = (squares / sum(sizes[kind] * len(each) for kind, each in per_parameter.items())) ** 0.5 or 1.0
    return {kind: each / scale for kind, each in per_parameter.items()}


def _steps(
    structure: ModelStructure, layer: int, importances: Mapping[Kind, Tensor], attention: AttentionMode, round_to: int
) -> Iterator[_Step]:
    """Yield a layer's groups in ascending importance, without the last of each kind, which must stay."""
    for kind, each in importances.items():
        size = structure.unit_parameters(layer, kind, attention)
        if kind == "channels":
            ascending = each.sort().values
            odd = len(ascending) % round_to
            parts = [(round_to, mean) for mean in ascending[odd:].view(-1, round_to).mean(dim=1).tolist()]
            parts[:0] = [(odd, float(ascending[:odd].mean()))] if odd else []
        else:
            rows = structure.layers[layer].kv_heads if attention == "query_heads" else 1
            parts = [(rows, mean) for mean in each.reshape(rows, -1).sort().values.mean(dim=0).tolist()]
        for groups, mean in parts[:-1]:
            yield _Step(layer, kind, groups, groups * size, mean)


def _without(structure: ModelStructure, layer: int, steps: Sequence[_Step], attention: AttentionMode) -> LayerCounts:
    shape = structure.layers[layer]
    mine = [step for step in steps if step.layer == layer]
    removed = {kind: sum(step.groups for step in mine if step.kind == kind) for kind in ("heads", "channels")}
    heads, kv_heads = shape.heads - removed["heads"], shape.kv_heads
    if attention == "kv_groups":
        kv_heads = shape.kv_heads - removed["heads"]
        heads = kv_heads * (shape.heads // shape.kv_heads)
    return LayerCounts(shape.channels - removed["channels"], heads, kv_heads, sum(step.parameters for step in mine))
