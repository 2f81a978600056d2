"""An axis of a block: what of a tensor is cut along with a unit."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class UnitAxis:
    """A linear layer, norm or parameter that is cut along with a unit.

    `side`: its output features with their bias, or its input features. `runs` says what these are, run after run, by
    the names that the kind of unit gives them; `name:3` has three times as many features of each unit, side by side.
    """

    module: str
    side: Literal["out", "in"]
    runs: tuple[str, ...]
