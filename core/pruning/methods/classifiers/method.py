"""What the engine asks of a method for image classifiers."""

from abc import ABC, abstractmethod

from core.catalogue.parameters import MethodParameters
from core.pruning.classifier.scene import Scene


class ClassifierMethod(ABC):
    """Removes weights or filters of a whole model, in place."""

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def prune(self, scene: Scene) -> None:
        """Reach the scene's sparsity: of the prunable weights exactly, of the model's parameters as near as whole
        filters allow."""
