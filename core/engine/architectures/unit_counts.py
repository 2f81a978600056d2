"""Units that can be removed from decoder blocks: how many of each kind to keep for a ratio."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.unit_kind import KindName, UnitKind
from secateur_wire.errors import InvalidSparsity, UnsupportedArchitecture


def fullest_layer(structure: ModelStructure, kinds: Sequence[UnitKind]) -> tuple[ModelStructure, int]:
    """Return the first layer that has units of all kinds that any has, with the structure it is of.

    Where there is none, as where attention and experts are layers of their own, it is one more that has what all have.
    """
    having = [{kind.name for kind in kinds if kind.units(shape)} for shape in structure.layers]
    every = set[str]().union(*having)
    if every in having:
        return structure, having.index(every)
    sizes = {name: max(shape.sizes[name] for shape in structure.layers) for name in structure.layers[0].sizes}
    joined = LayerShape.model_validate({"parameters": max(shape.parameters for shape in structure.layers), **sizes})
    return structure.model_copy(update={"layers": [*structure.layers, joined]}), len(structure.layers)


ROUNDING = 1e-6
"""Parameters that a ratio, a float, may mean too many or too few."""


@dataclass(frozen=True)
class WidthRequest:
    """Request to remove `ratio` of a model's `parameters` with units of these kinds, the finest by `round_to` of them.

    Layers that are `protected` keep all. `at_least`: no less is removed, else as near to it as possible. With a
    `hidden_size` all layers keep the same, and a config of that size must accept it; None: layers may differ.
    """

    kinds: Sequence[UnitKind]
    parameters: int
    ratio: float
    round_to: int
    hidden_size: int | None = None
    protected: frozenset[int] = frozenset()
    at_least: bool = False

    @property
    def wanted(self) -> float:
        """Number of parameters to remove."""
        return self.ratio * self.parameters


def unreachable(ratio: float, nearest: float, round_to: int) -> InvalidSparsity:
    """Return the error that no counts remove `ratio` of the model's parameters, the nearest being `nearest`."""
    return InvalidSparsity(
        f"sparsity {ratio:g}: no number of channels (in steps of {round_to}) and heads removes that share of the "
        f"model's parameters without emptying a layer; the nearest is {nearest:.4f}",
        param="sparsity",
    )


@dataclass(frozen=True)
class LayerCounts:
    """Units of each kind that a layer keeps, and the parameters it loses."""

    units: Mapping[KindName, int]
    removed: int

    @classmethod
    def of_all(cls, shape: LayerShape, kinds: Sequence[UnitKind]) -> "LayerCounts":
        """Return the counts of a layer that keeps everything."""
        return cls({kind.name: kind.units(shape) for kind in kinds}, 0)

    @classmethod
    def of(
        cls, structure: ModelStructure, layer: int, kinds: Sequence[UnitKind], units: Mapping[KindName, int]
    ) -> "LayerCounts":
        """Return the counts of a layer that keeps so many units of each kind."""
        shape = structure.layers[layer]
        removed = sum(
            (kind.units(shape) - units[kind.name]) * kind.parameters(structure, layer)
            for kind in kinds
        )  # fmt: skip
        return cls({kind.name: units[kind.name] for kind in kinds}, removed)


def removable_parameters(structure: ModelStructure, layer: int, kinds: Sequence[UnitKind]) -> int:
    """Return the parameters of all that the units of these kinds make up in a layer."""
    return sum(kind.all_parameters(structure, layer) for kind in kinds)


def fine_kind(kinds: Sequence[UnitKind]) -> UnitKind:
    """Return the kind whose units make up for what those of others leave over."""
    return next(kind for kind in kinds if kind.is_fine)


def fine_parameters(structure: ModelStructure, kinds: Sequence[UnitKind]) -> int:
    """Return the parameters of one of the finest units, in the layer where that is the most."""
    return max(fine_kind(kinds).parameters(structure, layer) for layer in range(len(structure.layers)))


def counts_for_ratio(structure: ModelStructure, request: WidthRequest) -> tuple[LayerCounts, ...]:
    """Return the units each layer keeps so that as much goes as is requested, all kinds alike.

    Where layers may differ, those that are not protected lose the same share. Where all keep the same and only some
    have units of a kind, what is alike is the number that those keep.

    In every layer, or there in all of them, the ratio is met within one aligned step of the finest units, by the step
    of its `width_steps` with the most even shares of all kinds; or, `at_least`, by the first step that removes no less.
    Raises InvalidSparsity naming the nearest ratio where no count reaches it.
    """
    kinds, round_to, hidden_size = request.kinds, request.round_to, request.hidden_size
    if hidden_size is not None and not structure.is_alike:
        most = width_steps(*fullest_layer(structure, kinds), kinds, hidden_size=hidden_size, round_to=round_to)
        slack = round_to * fine_parameters(structure, kinds) * len(structure.layers) + ROUNDING
        wanted, at_least = request.wanted, request.at_least
        nearest = min(
            (alike_counts(structure, kinds, each.units) for each in most),
            key=lambda each: (at_least and _removed(each) < wanted - ROUNDING, abs(_removed(each) - wanted)),
        )
        if abs(_removed(nearest) - wanted) > slack or (at_least and _removed(nearest) < wanted - ROUNDING):
            raise unreachable(request.ratio, _removed(nearest) / request.parameters, round_to)
        return nearest
    coarse = [kind for kind in kinds if not kind.is_fine]

    def evenness(each: LayerCounts, shape: LayerShape, share: float) -> tuple[float, ...]:
        return _share_imbalance(each, shape, coarse, share), *(-each.units[kind.name] for kind in coarse)

    return counts_among(
        structure,
        request,
        lambda layer: width_steps(structure, layer, kinds, hidden_size=hidden_size, round_to=round_to),
        evenness,
    )


def alike_counts(
    structure: ModelStructure, kinds: Sequence[UnitKind], units: Mapping[KindName, int]
) -> tuple[LayerCounts, ...]:
    """Return the counts of all layers where each keeps as many units of every kind that it has any of."""
    likenesses = _likenesses(structure)
    counts: dict[int, LayerCounts] = {}
    for layer in set(likenesses):
        shape = structure.layers[layer]
        kept = {kind.name: units[kind.name] if kind.units(shape) else 0 for kind in kinds}
        counts[layer] = LayerCounts.of(structure, layer, kinds, kept)
    return tuple(counts[layer] for layer in likenesses)


def _likenesses(structure: ModelStructure) -> list[int]:
    """Return for each layer the first one of its sizes, on which all that units count depends."""
    first: dict[tuple[tuple[str, int], ...], int] = {}
    return [first.setdefault(tuple(shape.sizes.items()), layer) for layer, shape in enumerate(structure.layers)]


def _removed(counts: Sequence[LayerCounts]) -> int:
    return sum(each.removed for each in counts)


def counts_among(
    structure: ModelStructure,
    request: WidthRequest,
    steps_of: Callable[[int], Sequence[LayerCounts]],
    preference: Callable[[LayerCounts, LayerShape, float], tuple[float, ...]],
) -> tuple[LayerCounts, ...]:
    """Return the units each layer keeps, of the widths it can have, so that as much goes as is requested.

    `steps_of` returns a layer's widths, each removing more than the one before. Of those within one aligned step of the
    finest units the one of the least `preference`, given the layer's shape and share, is taken, and of several alike
    the nearest; or, `at_least`, the first that removes no less. Of a layer without the finest units no more goes than
    its share, and others make up the rest. Raises InvalidSparsity as `counts_for_ratio` does.
    """
    kinds, layers = request.kinds, range(len(structure.layers))
    removable = [0 if layer in request.protected else removable_parameters(structure, layer, kinds) for layer in layers]
    if not any(removable):
        raise UnsupportedArchitecture(
            f"the model has no {' or '.join(kind.name for kind in kinds)} that can be removed", param="method"
        )
    fine = fine_kind(kinds)
    share = request.wanted / sum(removable)
    counts: list[LayerCounts] = []
    missed = False
    chosen: dict[int, LayerCounts] = {}
    likenesses = _likenesses(structure)
    coarse = [layer for layer in layers if removable[layer] and not fine.units(structure.layers[layer])]
    for layer in {likenesses[layer]: layer for layer in coarse}.values():
        steps = steps_of(layer)
        reached = [each for each in steps if each.removed <= share * removable[layer] + ROUNDING]
        chosen[likenesses[layer]] = (reached or steps[:1])[-1]
    if rest := sum(removable) - sum(removable[layer] for layer in coarse):
        share = (request.wanted - sum(chosen[likenesses[layer]].removed for layer in coarse)) / rest
    for layer, like, shape, most in zip(layers, likenesses, structure.layers, removable, strict=True):
        if not most:
            counts.append(LayerCounts.of_all(shape, kinds))
            continue
        if like in chosen:
            counts.append(chosen[like])
            continue
        wanted = share * most
        slack = request.round_to * fine.parameters(structure, layer) + ROUNDING
        steps = steps_of(layer)
        reached = [each for each in steps if abs(each.removed - wanted) <= slack]
        if request.at_least:
            reached = [each for each in reached if each.removed >= wanted - ROUNDING][:1]
        missed = missed or not reached

        def rank(
            each: LayerCounts, shape: LayerShape = shape, wanted: float = wanted
        ) -> tuple[tuple[float, ...], float]:
            return preference(each, shape, share), abs(each.removed - wanted)

        chosen[like] = min(reached, key=rank) if reached else min(steps, key=lambda each: abs(each.removed - wanted))
        counts.append(chosen[like])
    if missed:
        raise unreachable(request.ratio, _removed(counts) / request.parameters, request.round_to)
    return tuple(counts)


def width_steps(
    structure: ModelStructure, layer: int, kinds: Sequence[UnitKind], *, hidden_size: int | None, round_to: int
) -> list[LayerCounts]:
    """Return the widths a layer can have, each step removing more than the one before.

    The steps go from nothing removed to all but one aligned step of the finest units and the fewest others, each by at
    most one aligned step.

    All kinds lose the same share of theirs as nearly as entire units allow, and the finest ones, a multiple of
    `round_to` of them, make up for the rest: a number of the others is used in the range of steps whose share it is
    nearest to, and for one step at either end. A config of `hidden_size` must accept it (None: any will do).
    """
    shape, removable = structure.layers[layer], removable_parameters(structure, layer, kinds)
    coarse, fine = [kind for kind in kinds if not kind.is_fine], fine_kind(kinds)
    most, size = fine.units(shape), fine.parameters(structure, layer)
    if not most:
        every = coarse_options(structure, layer, kinds, hidden_size)
        return [LayerCounts({**each.units, fine.name: 0}, each.removed) for each in every]
    step = round_to * size
    widths = aligned_widths(most, round_to)
    narrowest = (most - widths[-1]) * size
    options = coarse_options(structure, layer, kinds, hidden_size)
    begin = 0.0
    steps: dict[int, LayerCounts] = {}
    for option, following in zip(options, [*options[1:], None], strict=True):
        end = math.inf
        if following is not None:
            between = (1 - _mean_kept_share(option, following, shape, coarse)) * removable
            end = min(max(between, following.removed), option.removed + narrowest)
        for width in widths:
            removed = option.removed + (most - width) * size
            if begin - step < removed < end + step:
                counts = LayerCounts({**option.units, fine.name: width}, removed)
                alike = [counts, steps.get(removed, counts)]
                steps[removed] = min(
                    alike, key=lambda each: _share_imbalance(each, shape, coarse, each.removed / removable)
                )
        begin = end
    return [steps[removed] for removed in sorted(steps)]


def aligned_widths(most: int, round_to: int) -> list[int]:
    """Return the numbers of the finest units that can be kept: all, and the multiples of `round_to`, descending."""
    return [most, *(width for width in range(most // round_to * round_to, 0, -round_to) if width < most)]


def coarse_options(
    structure: ModelStructure, layer: int, kinds: Sequence[UnitKind], hidden_size: int | None
) -> list[LayerCounts]:
    """Return the numbers of units of all kinds but the finest that a layer can have, the most units first."""
    shape = structure.layers[layer]
    coarse = [kind for kind in kinds if not kind.is_fine]

    def numbers(kind: UnitKind) -> Iterator[int]:
        parts, most = kind.parts(shape), kind.units(shape)
        for units in range(parts, most + 1, parts) if most else [0]:
            is_accepted = hidden_size is None or kind.accepts(structure, kind.sizes(shape, units), hidden_size)
            if units == most or is_accepted:
                yield units

    options = []
    for kept in product(*map(numbers, coarse)):
        units = {kind.name: number for kind, number in zip(coarse, kept, strict=True)}
        options.append(LayerCounts.of(structure, layer, coarse, units))
    return sorted(options, key=lambda each: each.removed)


def _share_imbalance(counts: LayerCounts, shape: LayerShape, coarse: Sequence[UnitKind], share: float) -> float:
    """Return the distance of the shares of units removed from `share`, that of the layer's removable parameters."""
    there = [kind for kind in coarse if kind.units(shape)]
    return sum(abs(1 - counts.units[kind.name] / kind.units(shape) - share) for kind in there)


def _mean_kept_share(one: LayerCounts, other: LayerCounts, shape: LayerShape, coarse: Sequence[UnitKind]) -> float:
    """Return the share of units kept half way between two counts, on average over the kinds."""
    there = [kind for kind in coarse if kind.units(shape)]
    shares = [(one.units[kind.name] + other.units[kind.name]) / (2 * kind.units(shape)) for kind in there]
    return sum(shares) / len(shares)
