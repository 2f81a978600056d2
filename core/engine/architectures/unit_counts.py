"""Counts of units to keep in decoder blocks, of each kind, for a sparsity ratio."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from pydantic import BaseModel

from core.engine.architectures.structure import LayerShape, ModelStructure
from core.engine.architectures.units import BLOCK_KINDS, AttentionMode, KindName, UnitKind, removed_kinds
from secateur_wire.errors import InvalidSparsity, UnsupportedArchitecture


def layer_with_all_kinds(structure: ModelStructure, kinds: Sequence[UnitKind]) -> tuple[ModelStructure, int]:
    """Return the first layer that has units of all kinds, and the structure that contains it.

    Where no layer has all kinds, as when attention and experts are separate layers, a layer with every size that some
    layer has is added to the structure, and returned.
    """
    kinds_by_layer = [{kind.name for kind in kinds if kind.units(shape)} for shape in structure.layers]
    every = set[str]().union(*kinds_by_layer)
    if every in kinds_by_layer:
        return structure, kinds_by_layer.index(every)
    sizes = {name: max(shape.sizes[name] for shape in structure.layers) for name in structure.layers[0].sizes}
    joined = LayerShape.model_validate({"parameters": max(shape.parameters for shape in structure.layers), **sizes})
    return structure.model_copy(update={"layers": [*structure.layers, joined]}), len(structure.layers)


ROUNDING = 1e-6
"""Tolerance in parameters for the rounding of a ratio, which is a float."""
LEAST_CHANNEL_SHARE = 0.25
"""Least share of a layer's channels that stays until no more heads can go, where channels go first."""


@dataclass(frozen=True)
class WidthRequest:
    """Request to remove `ratio` of a model's `parameters` with units of these kinds, the finest in steps of `round_to`.

    `protected` layers keep everything. With `at_least` no less is removed; without it the number is the nearest
    possible. With a `hidden_size` all layers keep the same counts, and a config of that size must accept them; with
    None layers may differ. So many more go as are `added`.
    """

    kinds: Sequence[UnitKind]
    parameters: int
    ratio: float
    round_to: int
    hidden_size: int | None = None
    protected: frozenset[int] = frozenset()
    at_least: bool = False
    added: int = 0

    @property
    def wanted(self) -> float:
        """Number of parameters to remove."""
        return self.ratio * self.parameters + self.added


def unreachable(ratio: float, nearest: float, round_to: int) -> InvalidSparsity:
    """Return the error for a `ratio` that no counts reach; it names the `nearest` ratio."""
    return InvalidSparsity(
        f"sparsity {ratio:g}: no number of channels (in steps of {round_to}) and heads removes that share of the "
        f"model's parameters without emptying a layer; the nearest is {nearest:.4f}",
        param="sparsity",
    )


@dataclass(frozen=True)
class LayerCounts:
    """Units of each kind that a layer keeps, and the number of parameters it loses."""

    units: Mapping[KindName, int]
    removed: int

    @classmethod
    def of_all(cls, shape: LayerShape, kinds: Sequence[UnitKind]) -> "LayerCounts":
        return cls({kind.name: kind.units(shape) for kind in kinds}, 0)

    @classmethod
    def of(
        cls, structure: ModelStructure, layer: int, kinds: Sequence[UnitKind], units: Mapping[KindName, int]
    ) -> "LayerCounts":
        """Return the counts of a layer that keeps this many units of each kind."""
        shape = structure.layers[layer]
        removed = sum(
            (kind.units(shape) - units[kind.name]) * kind.parameters(structure, layer)
            for kind in kinds
        )  # fmt: skip
        return cls({kind.name: units[kind.name] for kind in kinds}, removed)


def removable_parameters(structure: ModelStructure, layer: int, kinds: Sequence[UnitKind]) -> int:
    """Return the parameters of all units of these kinds in a layer; those of heads include keys and values."""
    by_name = {kind.name: kind for kind in BLOCK_KINDS}
    counted = [by_name[kind.name] for kind in kinds]
    return sum(kind.units(structure.layers[layer]) * kind.parameters(structure, layer) for kind in counted)


def fine_kind(kinds: Sequence[UnitKind]) -> UnitKind:
    """Return the finest kind: its units make up the difference that units of other kinds leave."""
    return next(kind for kind in kinds if kind.is_fine)


def fine_parameters(structure: ModelStructure, kinds: Sequence[UnitKind]) -> int:
    """Return the parameters of one of the finest units, in the layer where they are largest."""
    return max(fine_kind(kinds).parameters(structure, layer) for layer in range(len(structure.layers)))


def counts_for_ratio(structure: ModelStructure, request: WidthRequest) -> tuple[LayerCounts, ...]:
    """Return the units each layer keeps so that the requested ratio is removed, with even shares of all kinds.

    Where layers may differ, all layers that are not protected lose the same share. Where all layers must be alike and
    only some have units of a kind, those layers keep the same number.

    In every layer (or over all layers, where they must be alike) the ratio is met within one aligned step of the finest
    units. Among the `width_steps` that meet it, the step with the most even shares of all kinds is taken. With
    `at_least` the first step that removes no less is taken. Raises InvalidSparsity, naming the nearest ratio, where no
    count reaches it.
    """
    kinds, round_to, hidden_size = request.kinds, request.round_to, request.hidden_size
    if hidden_size is not None and not structure.is_alike:
        most = width_steps(*layer_with_all_kinds(structure, kinds), kinds, hidden_size=hidden_size, round_to=round_to)
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


def counts_channels_first(structure: ModelStructure, request: WidthRequest) -> tuple[LayerCounts, ...]:
    """Return the units each layer keeps so that the requested ratio is removed, with channels going before heads.

    Raises InvalidSparsity as `counts_for_ratio` does.
    """

    def steps_of(layer: int) -> list[LayerCounts]:
        return channels_first(
            structure, layer, request.kinds, hidden_size=request.hidden_size, round_to=request.round_to
        )

    return counts_among(structure, request, steps_of, lambda each, shape, share: ())


def alike_counts(
    structure: ModelStructure, kinds: Sequence[UnitKind], units: Mapping[KindName, int]
) -> tuple[LayerCounts, ...]:
    """Return the counts of all layers where each keeps the same number of units of every kind that it has."""
    first_equal = _first_equal_layers(structure)
    counts: dict[int, LayerCounts] = {}
    for layer in set(first_equal):
        shape = structure.layers[layer]
        kept = {kind.name: units[kind.name] if kind.units(shape) else 0 for kind in kinds}
        counts[layer] = LayerCounts.of(structure, layer, kinds, kept)
    return tuple(counts[layer] for layer in first_equal)


def _first_equal_layers(structure: ModelStructure) -> list[int]:
    """Return, for each layer, the index of the first layer with the same sizes, whose counts are equal."""
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
    """Return the units each layer keeps, among its possible widths, so that the requested ratio is removed.

    `steps_of` returns a layer's widths, each removing more than the one before. Among the widths within one aligned
    step of the finest units, the one with the least `preference`, given the layer's shape and share, is taken; ties go
    to the nearest. With `at_least` the first width that removes no less is taken. A layer without the finest units
    loses no more than its share, and other layers make up the rest. Raises InvalidSparsity as `counts_for_ratio` does.
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
    first_equal = _first_equal_layers(structure)
    coarse = [layer for layer in layers if removable[layer] and not fine.units(structure.layers[layer])]
    for layer in {first_equal[layer]: layer for layer in coarse}.values():
        steps = steps_of(layer)
        reached = [each for each in steps if each.removed <= share * removable[layer] + ROUNDING]
        chosen[first_equal[layer]] = (reached or steps[:1])[-1]
    if rest := sum(removable) - sum(removable[layer] for layer in coarse):
        share = (request.wanted - sum(chosen[first_equal[layer]].removed for layer in coarse)) / rest
    for layer, like, shape, most in zip(layers, first_equal, structure.layers, removable, strict=True):
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

    The first step removes nothing. The last leaves one aligned step of the finest units and the fewest others. Each
    step removes at most one aligned step more.

    All kinds lose the same share of their units, as nearly as whole units allow; the finest units, in multiples of
    `round_to`, make up the difference. A count of the other kinds is used over the range of steps whose share it is
    nearest to, and for one step beyond either end. A config of `hidden_size` must accept the width; with None every
    width is accepted.
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


def channels_first(
    structure: ModelStructure, layer: int, kinds: Sequence[UnitKind], *, hidden_size: int | None, round_to: int
) -> list[LayerCounts]:
    """Return widths of a layer, each removing more than the one before, with channels going before heads.

    A share `LEAST_CHANNEL_SHARE` of the channels stays while heads can still go; each step then removes as few heads as
    possible. At the end the fewest possible heads and one aligned step of channels are left. A config of `hidden_size`
    must accept the width; with None every width is accepted. A layer without channels keeps everything.
    """
    fine = fine_kind(kinds)
    most = fine.units(structure.layers[layer])
    if not most:
        return [LayerCounts.of_all(structure.layers[layer], kinds)]
    floor = min(most, math.ceil(LEAST_CHANNEL_SHARE * most / round_to) * round_to)
    *before, fewest = coarse_options(structure, layer, kinds, hidden_size)
    narrow_first = aligned_widths(most, round_to)[::-1]
    steps: list[LayerCounts] = []
    for option, least in [*((each, floor) for each in before), (fewest, 0)]:
        further = []
        for width in narrow_first:
            counts = LayerCounts.of(structure, layer, kinds, {**option.units, fine.name: width})
            if steps and counts.removed <= steps[-1].removed:
                break
            if width >= least:
                further.append(counts)
        steps += further[::-1]
    return steps


def aligned_widths(most: int, round_to: int) -> list[int]:
    """Return the possible numbers of the finest units to keep: all, and the multiples of `round_to`, descending."""
    return [most, *(width for width in range(most // round_to * round_to, 0, -round_to) if width < most)]


def coarse_options(
    structure: ModelStructure, layer: int, kinds: Sequence[UnitKind], hidden_size: int | None
) -> list[LayerCounts]:
    """Return the possible counts of a layer for all kinds but the finest, the most units first."""
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
    """Return the sum over kinds of the distance between the removed share of units and `share`.

    `share` is a share of the removable parameters.
    """
    present = [kind for kind in coarse if kind.units(shape)]
    return sum(abs(1 - counts.units[kind.name] / kind.units(shape) - share) for kind in present)


def _mean_kept_share(one: LayerCounts, other: LayerCounts, shape: LayerShape, coarse: Sequence[UnitKind]) -> float:
    """Return the share of units kept halfway between two counts, averaged over the kinds."""
    present = [kind for kind in coarse if kind.units(shape)]
    shares = [(one.units[kind.name] + other.units[kind.name]) / (2 * kind.units(shape)) for kind in present]
    return sum(shares) / len(shares)


def require_reachable(structure: ModelStructure, request: WidthRequest) -> WidthRequest:
    """Return a request that a ranking of the units of all layers can meet; raises InvalidSparsity naming the most.

    A layer keeps at least one aligned step of the finest units, and one unit of each part of every other kind.
    """
    most = 0
    for layer, shape in enumerate(structure.layers):
        if layer not in request.protected:
            for kind in request.kinds:
                last = request.round_to if kind.is_fine else kind.parts(shape)
                most += max(kind.units(shape) - last, 0) * kind.parameters(structure, layer)
    if request.wanted > most:
        raise unreachable(request.ratio, most / request.parameters, request.round_to)
    return request


class CostLimit(BaseModel, frozen=True):
    """Costs of a model's parts, and the most that they may come to: `limit`; those of the dense model come to `dense`.

    `units` has the cost of a layer's units of each kind, by the number that stays: the numbers that may be chosen.
    `layer` is the cost of the rest of a layer, and `fixed` that of everything else. `target` is the kind of the job's
    target, a ratio to the dense model's cost if `is_ratio`, and `basis` says where the costs come from.
    """

    target: str
    is_ratio: bool
    basis: str
    limit: float
    dense: float
    fixed: float
    layer: float
    units: dict[KindName, dict[int, float]]

    def of_layer(self, units: Mapping[KindName, int]) -> float:
        """Return the cost of a layer that keeps these numbers of units."""
        return self.layer + sum(costs[units[kind]] for kind, costs in self.units.items())

    def figure(self, cost: float) -> str:
        """Return a cost as the target states it, for messages and the report."""
        return f"{cost / self.dense:.3f}" if self.is_ratio else f"{round(cost):,}"


@dataclass(frozen=True)
class WidthReduction:
    """Width reduction of the layers: to given `counts`, by a `ranking` of the units of all layers, or to `costs`.

    `counts` has one entry per layer; where it is None, layers keep the units that the ranking leaves, or lose least
    within the limit of `costs`. `protected` layers are not changed. At least `limit` parameters go; with 0, the number
    nearest to the ratio.
    """

    attention: AttentionMode
    protected: frozenset[int]
    counts: tuple[LayerCounts, ...] | None
    ranking: WidthRequest | None
    round_to: int
    limit: float = 0.0
    costs: CostLimit | None = None

    @property
    def kinds(self) -> tuple[UnitKind, ...]:
        return removed_kinds(self.attention)

    def with_added_parameters(self, structure: ModelStructure, added: int) -> "WidthReduction":
        """Return a reduction that removes `added` more parameters, so that `limit` holds for methods that add some."""
        if self.ranking is not None:
            return replace(self, ranking=replace(self.ranking, added=added if self.ranking.at_least else 0))
        assert self.counts is not None
        counts = self.counts
        while self.limit and sum(each.removed for each in counts) < self.limit + added:
            narrower = tuple(
                each if layer in self.protected else self._with_one_step_less(each, structure, layer)
                for layer, each in enumerate(counts)
            )
            if narrower == counts:
                break
            counts = narrower
        return replace(self, counts=counts)

    def _with_one_step_less(self, counts: LayerCounts, structure: ModelStructure, layer: int) -> LayerCounts:
        """Return the counts of a layer with one aligned step of the finest units less, where it has more than one."""
        fine = fine_kind(self.kinds)
        before = counts.units[fine.name]
        after = max((before - 1) // self.round_to * self.round_to, min(self.round_to, before))
        removed = counts.removed + (before - after) * fine.parameters(structure, layer)
        return LayerCounts({**counts.units, fine.name: after}, removed)
