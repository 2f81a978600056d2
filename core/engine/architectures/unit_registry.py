"""Registry of the kinds of units, from the modules of `unit_kinds`."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from core.discovery import declared
from core.engine.architectures import unit_kinds
from core.engine.architectures.architecture import EXPERTS_KIND
from core.engine.architectures.unit_kind import AttentionMode, UnitKind

_KINDS: Iterator[UnitKind] = chain.from_iterable(declared(unit_kinds, "KINDS"))
_ORDERED: Final = tuple(sorted(_KINDS, key=lambda each: each.rank))
BLOCK_KINDS: Final = tuple({each.name: each for each in reversed(_ORDERED)}.values())[::-1]
"""One kind of each name, for facts that do not depend on how its units are counted."""

EXPERT_UNITS: Final = next(each for each in BLOCK_KINDS if each.name == EXPERTS_KIND)
"""Kind of unit for a whole expert of a mixture. Only methods for experts remove it."""


def removed_kinds(attention: AttentionMode) -> tuple[UnitKind, ...]:
    """Return the kinds of units that a job with that attention mode removes, in the order of a layer."""
    return tuple(each for each in _ORDERED if each.is_removed(attention))
