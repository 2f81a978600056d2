"""Blocks of several kinds told as one: each has those layers that its own weights are of."""

from collections.abc import Sequence
from itertools import chain

from core.engine.architectures.architecture import Sublayer
from core.engine.models.tracing.execution import TracedSublayer

Groups = tuple[tuple[str, ...], ...]


def merged_groups(kinds: Sequence[Groups]) -> Groups:
    """Return groups of layers that read one tensor, in order: those of all kinds of blocks.

    Two layers are in one group where they are in every kind of block that has both; an order of execution is kept as
    far as the kinds agree on it.
    """
    order = _in_order([list(chain.from_iterable(groups)) for groups in kinds])
    together = [{name: group for group in groups for name in group} for groups in kinds]
    merged: list[list[str]] = []
    for name in order:
        fitting = (group for group in merged if all(_are_together(name, other, together) for other in group))
        group = next(fitting, None)
        if group is None:
            merged.append([name])
        else:
            group.append(name)
    return tuple(map(tuple, merged))


def merged_sublayers(kinds: Sequence[Sequence[TracedSublayer]]) -> tuple[Sublayer, ...]:
    """Return the sublayers of all kinds of blocks, in order; those with the same output are one."""
    order = _in_order([[each.outputs[-1] for each in sublayers] for sublayers in kinds])
    by_output: dict[str, list[TracedSublayer]] = {}
    for each in chain.from_iterable(kinds):
        by_output.setdefault(each.outputs[-1], []).append(each)
    return tuple(_sublayer(output, by_output[output]) for output in order)


def _sublayer(output: str, alike: Sequence[TracedSublayer]) -> Sublayer:
    groups = merged_groups([each.groups for each in alike])
    before = tuple(tuple(name for name in group if name != output) for group in groups)
    norms = {each.norm for each in alike}
    return Sublayer(
        (*filter(None, before), (output,)),
        {"heads": ()} if any(each.attends for each in alike) else {},
        norm=norms.pop() if len(norms) == 1 else None,
    )


def _are_together(one: str, other: str, kinds: Sequence[dict[str, tuple[str, ...]]]) -> bool:
    """Return True if two layers read one tensor in all kinds of blocks that have both, and in one at least."""
    both = [kind for kind in kinds if one in kind and other in kind]
    return bool(both) and all(other in kind[one] for kind in both)


def _in_order(sequences: Sequence[Sequence[str]]) -> list[str]:
    """Return all names of several sequences: what only a later one has stands behind what it follows there."""
    order: list[str] = []
    for sequence in sequences:
        place = 0
        for name in sequence:
            if name in order:
                place = order.index(name) + 1
            else:
                order.insert(place, name)
                place += 1
    return order
