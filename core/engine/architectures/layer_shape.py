"""The shape of one prunable layer, as a matrix."""

import fnmatch
from collections.abc import Iterable

from pydantic import BaseModel, Field


class LinearShape(BaseModel):
    """One prunable layer. `name` is the module's full name, `layer` its decoder layer; in a classifier its own place.

    A convolution reads `kernel` positions of `in_features / kernel` channels each. A stack of `experts` is as many
    matrices of that shape, each pruned by itself, under the name of the parameter that holds them.
    """

    name: str
    layer: int
    out_features: int
    in_features: int
    kernel: int = 1
    experts: int | None = Field(default=None, exclude_if=lambda experts: experts is None)

    @property
    def numel(self) -> int:
        return self.out_features * self.in_features * (self.experts or 1)

    def matches(self, patterns: Iterable[str]) -> bool:
        """Return whether a `skip_modules` entry means this layer: its last name, a dotted suffix, or a glob."""
        return any(
            self.name == pattern or self.name.endswith("." + pattern) or fnmatch.fnmatchcase(self.name, pattern)
            for pattern in patterns
        )
