"""What the engine asks of a structured method."""

from abc import ABC, abstractmethod
from typing import ClassVar

from core.catalogue.parameters import MethodParameters
from core.pruning.scene import Scene
from core.pruning.structure import Cut


class StructuredMethod(ABC):
    """Chooses what of a model is kept. `weight_reads`: how often it reads all weights to do so."""

    weight_reads: ClassVar[int]

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def choose(self, scene: Scene) -> Cut:
        """What is kept, as much as the scene's counts say."""
