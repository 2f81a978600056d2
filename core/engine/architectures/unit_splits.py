"""Splits of a removal between attention and FFN: how many heads go, and the channels that make up the rest."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Final

from core.engine.architectures.structure import ModelStructure
from core.engine.architectures.unit_counts import (
    LayerCounts,
    WidthRequest,
    aligned_widths,
    coarse_options,
    counts_among,
    fine_kind,
    removable_parameters,
)
from core.engine.architectures.unit_kind import UnitKind
from secateur_wire.errors import InvalidSparsity

MOST_SPLITS: Final = 5
"""Most splits that are compared beside the one that takes channels first."""
SPLIT_TOKENS: Final = 2048
"""Calibration tokens that splits are compared on, about."""
FLOOR: Final = 0.25
"""Share of a layer's channels that stays as long as heads can go instead, where no split is measured."""
_FARTHEST: Final = 2
"""Most that attention may lose, but for the fewest heads that can go, as a multiple of what an even split takes."""


def channels_first(
    structure: ModelStructure, layer: int, kinds: Sequence[UnitKind], *, hidden_size: int | None, round_to: int
) -> list[LayerCounts]:
    """Return widths of a layer, each removing more than the one before, channels going before heads.

    Of the channels `FLOOR` stays while there are heads to go, of which each step has as few as possible; at the end the
    heads are the fewest there can be, and one aligned step of channels. A config of `hidden_size` must accept it
    (None: any will do). A layer without channels keeps all.
    """
    fine = fine_kind(kinds)
    most = fine.units(structure.layers[layer])
    if not most:
        return [LayerCounts.of_all(structure.layers[layer], kinds)]
    floor = min(most, math.ceil(FLOOR * most / round_to) * round_to)
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


def splits_for_ratio(structure: ModelStructure, request: WidthRequest) -> list[tuple[LayerCounts, ...]]:
    """Return the units each layer keeps, once for each way of splitting what is removed.

    The first takes channels before heads. The others, `MOST_SPLITS` at most, take a number of heads each: as few as can
    be, and up to `_FARTHEST` times what an even split takes. Raises InvalidSparsity as `counts_for_ratio` does.
    """
    kinds, round_to, hidden_size = request.kinds, request.round_to, request.hidden_size
    fine = fine_kind(kinds)
    like = [structure.layers.index(shape) for shape in structure.layers]
    options = {layer: coarse_options(structure, layer, kinds, hidden_size) for layer in set(like)}

    @cache
    def in_order(layer: int) -> list[LayerCounts]:
        return channels_first(structure, layer, kinds, hidden_size=hidden_size, round_to=round_to)

    @cache
    def with_heads(number: int, layer: int) -> list[LayerCounts]:
        own = options[layer]
        heads = own[min(round(number * len(own) / len(options[free])), len(own) - 1)]
        widths = aligned_widths(fine.units(structure.layers[layer]), round_to)
        return [LayerCounts.of(structure, layer, kinds, {**heads.units, fine.name: width}) for width in widths]

    def counted(steps_of: Callable[[int], list[LayerCounts]]) -> tuple[LayerCounts, ...]:
        return counts_among(
            structure,
            request,
            lambda layer: steps_of(like[layer]),
            lambda each, shape, share: (),
        )

    splits = [counted(in_order)]
    if not any(each.removed for each in splits[0]):
        return splits
    having = [layer for layer, shape in enumerate(structure.layers) if fine.units(shape)]
    free = next(like[layer] for layer in having if layer not in request.protected)
    share = sum(each.removed for each in splits[0]) / sum(
        removable_parameters(structure, layer, kinds) for layer in range(len(like)) if layer not in request.protected
    )
    for number in _numbers(structure, free, options[free], kinds, share):
        with suppress(InvalidSparsity):
            counts = counted(partial(with_heads, number))
            splits += [counts] if counts not in splits else []
    return splits


def _numbers(
    structure: ModelStructure, layer: int, options: Sequence[LayerCounts], kinds: Sequence[UnitKind], share: float
) -> list[int]:
    """Return the places of the options that are worth comparing where a layer loses that share of its parameters."""
    fine = fine_kind(kinds).all_parameters(structure, layer)
    every = removable_parameters(structure, layer, kinds)
    numbers = [
        number
        for number, each in enumerate(options)
        if each.removed <= share * every <= each.removed + fine
        and (number < 2 or each.removed <= _FARTHEST * share * (every - fine))
    ]
    return _spread(numbers, MOST_SPLITS)


def _spread(numbers: list[int], most: int) -> list[int]:
    """Return at most so many of a list, evenly spaced, its first and last among them."""
    if len(numbers) <= most:
        return numbers
    return [numbers[round(place * (len(numbers) - 1) / (most - 1))] for place in range(most)]
