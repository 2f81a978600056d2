"""The shape of one prunable layer, as a matrix."""

import fnmatch
from collections.abc import Iterable

from pydantic import BaseModel, Field


class LinearShape(BaseModel):
    """Prunable layer. `name` is the module's full name, `layer` its decoder layer, or its own place in a classifier.

    A convolution reads `kernel` positions of `in_features / kernel` channels each. A stack of `experts` holds one
    matrix of that shape for each expert, under the parameter's name; each matrix is pruned by itself.
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
        """Return True if a `skip_modules` entry matches this layer: its last name, a dotted suffix, or a glob."""
        return any(
            self.name == pattern or self.name.endswith("." + pattern) or fnmatch.fnmatchcase(self.name, pattern)
            for pattern in patterns
        )
