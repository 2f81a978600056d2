"""Interface of a method for image classifiers."""

from abc import ABC, abstractmethod

from core.engine.options.axes import MethodParameters
from core.engine.pruning.network import Network


class ClassifierMethod(ABC):
    """Method that removes weights or filters of a loaded model, in place."""

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def prune(self, network: Network) -> None:
        """Prune to the network's sparsity.

        As a share of the prunable weights it is met exactly; as a share of the model's parameters, as nearly as entire
        filters allow.
        """
