"""Global ranking of the units of all layers: the number in each layer among the model's least important units.

A unit's importance is taken per parameter it frees. Within each layer it is divided by the root mean square over the
layer's parameters, heads and channels together (Molchanov 2016, arXiv:1611.06440, eq. 7, divides by the L2 norm, which
is equivalent where layers have the same number of units). Layers are thus comparable whatever the scale of their
gradients, and heads are comparable with channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import LayerCounts, WidthRequest, fine_parameters, unreachable
from core.engine.architectures.units import KindName, UnitKind

_ROUNDING = 0.5
"""Tolerance in parameters, because the ratio is a float."""


@dataclass(frozen=True)
class _Step:
    """Units of a layer that are removed together, after those of lower importance.

    They are an aligned step of the finest units, or one unit of each part of other kinds. `importance` is their mean.
    """

    layer: int
    kind: UnitKind
    units: int
    parameters: int
    importance: float


def ranked_counts(
    structure: ModelStructure,
    scores: Sequence[Mapping[KindName, Tensor]],
    kinds: Sequence[UnitKind],
    ranking: WidthRequest,
) -> tuple[LayerCounts, ...]:
    """Return the counts each layer keeps, from the score of each of its units, by kind: [sets × units].

    Raises InvalidSparsity where no counts meet the ranking.
    """
    comparable = [_per_parameter(structure, layer, each, kinds) for layer, each in enumerate(scores)]
    return threshold_counts(structure, comparable, kinds, ranking)


def threshold_counts(
    structure: ModelStructure,
    importances: Sequence[Mapping[KindName, Tensor]],
    kinds: Sequence[UnitKind],
    ranking: WidthRequest,
) -> tuple[LayerCounts, ...]:
    """Return the counts each layer keeps, from importances comparable across layers and kinds: [sets × units].

    Units are removed if they are among the lowest of all steps that make up `ranking.wanted`. The finest units make up
    the rest, so that the entire model meets it within half a step of these, or, with `at_least`, within one. Raises
    InvalidSparsity where it cannot.
    """
    steps = [
        step
        for layer, each in enumerate(importances)
        if layer not in ranking.protected
        for step in _steps(structure, layer, each, kinds, ranking.round_to)
    ]
    steps.sort(key=lambda step: step.importance)
    wanted = ranking.wanted
    size = fine_parameters(structure, kinds)
    taken: list[_Step] = []
    total = 0
    for step in steps:
        if total >= wanted:
            break
        total += step.parameters
        if not step.kind.is_fine:
            taken.append(step)
    while (left := wanted - sum(step.parameters for step in taken)) < -size / 2:
        taken.pop()
    for step in steps:
        if step.kind.is_fine and left > (_ROUNDING if ranking.at_least else step.parameters / 2):
            left -= step.parameters
            taken.append(step)
        elif step.kind.is_fine:
            break
    if left > (_ROUNDING if ranking.at_least else ranking.round_to * size):
        reached = ranking.ratio * (1 - left / wanted)
        raise unreachable(ranking.ratio, reached, ranking.round_to)
    return tuple(_without(structure, layer, taken, kinds) for layer in range(len(structure.layers)))


def _per_parameter(
    structure: ModelStructure, layer: int, scores: Mapping[KindName, Tensor], kinds: Sequence[UnitKind]
) -> dict[KindName, Tensor]:
    """Return a layer's scores per freed parameter, divided by their root mean square over its parameters."""
    sizes = {kind.name: kind.parameters(structure, layer) for kind in kinds}
    per_parameter = {kind: score_U.double() / sizes[kind] for kind, score_U in scores.items()}
    squares = sum(sizes[kind] * float(each.square().sum()) for kind, each in per_parameter.items())
    parameters = sum(sizes[kind] * len(each) for kind, each in per_parameter.items())
    scale = (squares / max(parameters, 1)) ** 0.5 or 1.0
    return {kind: each / scale for kind, each in per_parameter.items()}


def _steps(
    structure: ModelStructure,
    layer: int,
    importances: Mapping[KindName, Tensor],
    kinds: Sequence[UnitKind],
    round_to: int,
) -> Iterator[_Step]:
    """Yield a layer's units in ascending importance, without the last of each kind, which must stay."""
    for kind in kinds:
        if not kind.units(structure.layers[layer]):
            continue
        each, size = importances[kind.name], kind.parameters(structure, layer)
        if kind.is_fine:  # all sets of a layer lose the same number
            sets = kind.sets(structure.layers[layer])
            ascending = each.reshape(sets, -1).sort(dim=1).values.sum(dim=0)
            odd = len(ascending) % round_to
            parts = [(round_to, mean) for mean in ascending[odd:].view(-1, round_to).mean(dim=1).tolist()]
            parts[:0] = [(odd, float(ascending[:odd].mean()))] if odd else []
        else:
            rows = kind.parts(structure.layers[layer])
            parts = [(rows, mean) for mean in each.reshape(rows, -1).sort().values.mean(dim=0).tolist()]
        for units, mean in parts[:-1]:
            yield _Step(layer, kind, units, units * size, mean)


def _without(structure: ModelStructure, layer: int, steps: Sequence[_Step], kinds: Sequence[UnitKind]) -> LayerCounts:
    units = dict(LayerCounts.of_all(structure.layers[layer], kinds).units)
    for step in steps:
        if step.layer == layer:
            units[step.kind.name] -= step.units
    return LayerCounts.of(structure, layer, kinds, units)
