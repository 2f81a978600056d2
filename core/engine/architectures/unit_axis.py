"""Axis of a block: the dimension of a tensor that shrinks when a unit is removed."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class UnitAxis:
    """Linear layer, norm or parameter that shrinks with a unit.

    `side` is the dimension that shrinks: the output features, with their bias, or the input features. `runs` names the
    contiguous runs of these features, with the names of the kind of unit. `name:3` has three times as many features per
    unit, side by side.
    """

    module: str
    side: Literal["out", "in"]
    runs: tuple[str, ...]
