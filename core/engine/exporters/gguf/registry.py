"""Registry of GGUF's families: those of the modules of `families`, by their architecture's class in transformers."""

from collections.abc import Iterator
from typing import Final

from core.discovery import declared
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from core.engine.exporters.gguf import families
from core.engine.exporters.gguf.family import GgufFamily

_DECLARED: Iterator[GgufFamily] = declared(families, "FAMILY")
_BY_NAME = {each.architecture: each for each in _DECLARED}
FAMILIES: Final = {name: _BY_NAME[name] for name in LANGUAGE_ARCHITECTURES if name in _BY_NAME}
"""Families by architecture, in the order of these."""
