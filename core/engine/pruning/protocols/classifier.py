"""Interface of a method for image classifiers."""

from abc import ABC, abstractmethod

from core.engine.options.base import MethodParameters
from core.engine.pruning.network import Scene


class ClassifierMethod(ABC):
    """A method that removes weights or filters of a loaded model, in place."""

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def prune(self, scene: Scene) -> None:
        """Prune to the scene's sparsity.

        It is met exactly as a share of the prunable weights, and as near as entire filters allow as a share of the
        model's parameters.
        """
