"""Interface of a structured method."""

from abc import ABC, abstractmethod
from typing import ClassVar

from core.engine.options.base import MethodParameters
from core.engine.pruning.units.context import Scene
from core.engine.pruning.units.removal import Cut


class StructuredMethod(ABC):
    """A choice of the units a model keeps; `weight_reads` is how often it reads all weights to choose."""

    weight_reads: ClassVar[int]

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def choose(self, scene: Scene) -> Cut:
        """Choose the units to keep, as many as the scene's counts say."""
