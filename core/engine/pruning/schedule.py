"""Cubic schedule of gradual removal (Zhu & Gupta 2017, arXiv:1710.01878), constant at both ends."""

from collections.abc import Sequence
from dataclasses import replace
from math import floor

from core.engine.architectures.structure import LayerShape
from core.engine.architectures.unit_counts import LayerCounts
from core.engine.architectures.units import UnitKind

WARM_UP = 0.1
COOL_DOWN = 0.1


def cubic(done: int, steps: int, *, warm_up: float = WARM_UP, cool_down: float = COOL_DOWN) -> float:
    """Return the share of the removal after `done` of `steps` steps.

    It is 1 − (1 − p)³, with p rising from 0 at the end of the warm-up to 1 at the start of the cool-down; both are
    shares of the steps. Exactly 0 before, exactly 1 after.
    """
    first, last = warm_up * steps, (1 - cool_down) * steps
    if done >= last:
        return 1.0
    return 1 - (1 - max(0.0, done - first) / (last - first)) ** 3


def counts_at(share: float, counts: LayerCounts, shape: LayerShape, kinds: Sequence[UnitKind]) -> LayerCounts:
    """Return the counts of a layer after `share` of its removal, to the nearest unit; `counts` at share 1."""

    def kept(kind: UnitKind) -> int:
        before, step = kind.units(shape), kind.parts(shape)
        return before - step * floor(share * (before - counts.units[kind.name]) / step + 0.5)

    return replace(counts, units={kind.name: kept(kind) for kind in kinds})
