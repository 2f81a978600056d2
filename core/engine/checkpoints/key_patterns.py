"""Patterns of tensor names: a name with `{}` in place of each number of a module list."""

import re
from typing import Final

_NUMBER: Final = re.compile(r"(?<![^.])[0-9]+(?![^.])")


def pattern_of(name: str) -> str:
    """Return a name with `{}` for each of its numbers."""
    return _NUMBER.sub("{}", name)


def numbers_of(name: str) -> list[str]:
    """Return the numbers of a name, in order, as arguments for its pattern's `format`."""
    return _NUMBER.findall(name)
