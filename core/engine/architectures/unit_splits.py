"""Splits of a removal between attention and FFN: the number of heads, and the channels that make up the rest."""

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
"""Largest number of splits compared with the split that takes channels first."""
SPLIT_TOKENS: Final = 2048
"""Approximate number of calibration tokens for the comparison of splits."""
LEAST_CHANNEL_SHARE: Final = 0.25
"""Least share of a layer's channels that stays until no more heads can go, for splits without measurement."""
_LARGEST_HEAD_FACTOR: Final = 2
"""Largest loss of attention, as a multiple of its loss in an even split; the fewest removable heads may exceed it."""


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


def splits_for_ratio(structure: ModelStructure, request: WidthRequest) -> list[tuple[LayerCounts, ...]]:
    """Return the units each layer keeps, once for each split of the removal between attention and FFN.

    The first split takes channels before heads. The others, `MOST_SPLITS` at most, take a number of heads each: between
    the fewest possible and `_LARGEST_HEAD_FACTOR` times the number in an even split. Raises InvalidSparsity as
    `counts_for_ratio` does.
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
    with_channels = [layer for layer, shape in enumerate(structure.layers) if fine.units(shape)]
    free = next(like[layer] for layer in with_channels if layer not in request.protected)
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
    """Return the indices of the options worth comparing for a layer that loses that share of its parameters."""
    fine = fine_kind(kinds).all_parameters(structure, layer)
    every = removable_parameters(structure, layer, kinds)
    numbers = [
        number
        for number, each in enumerate(options)
        if each.removed <= share * every <= each.removed + fine
        and (number < 2 or each.removed <= _LARGEST_HEAD_FACTOR * share * (every - fine))
    ]
    return _spread(numbers, MOST_SPLITS)


def _spread(numbers: list[int], most: int) -> list[int]:
    """Return at most `most` evenly spaced items of a list, the first and last included."""
    if len(numbers) <= most:
        return numbers
    return [numbers[round(place * (len(numbers) - 1) / (most - 1))] for place in range(most)]
