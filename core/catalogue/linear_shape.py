"""The shape of one prunable layer, as a matrix."""

import fnmatch
from collections.abc import Iterable

from pydantic import BaseModel


class LinearShape(BaseModel):
    """One prunable linear layer. `name` is the module's full name, `layer` its decoder layer."""

    name: str
    layer: int
    out_features: int
    in_features: int

    @property
    def numel(self) -> int:
        return self.out_features * self.in_features

    def matches(self, patterns: Iterable[str]) -> bool:
        """Whether a `skip_modules` entry means this layer: its last name, a dotted suffix, or a glob."""
        return any(
            self.name == pattern or self.name.endswith("." + pattern) or fnmatch.fnmatchcase(self.name, pattern)
            for pattern in patterns
        )
