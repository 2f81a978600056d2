"""Registry of the kinds of units: those of the modules of `unit_kinds`."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from core.engine.architectures import unit_kinds
from core.engine.architectures.unit_kind import AttentionMode, UnitKind


def _declared() -> Iterator[UnitKind]:
    """Yield the kinds of every module of `unit_kinds`."""
    for module in iter_modules(unit_kinds.__path__, f"{unit_kinds.__name__}."):
        yield from import_module(module.name).KINDS


_ORDERED: Final = tuple(sorted(_declared(), key=lambda each: each.rank))
BLOCK_KINDS: Final = tuple({each.name: each for each in reversed(_ORDERED)}.values())[::-1]
"""One kind of each name: what all ways of counting its units have in common is asked of it."""


def removed_kinds(attention: AttentionMode) -> tuple[UnitKind, ...]:
    """Return the kinds of units that a job with that attention mode removes, in the order they have in a layer."""
    return tuple(each for each in _ORDERED if each.is_removed(attention))
