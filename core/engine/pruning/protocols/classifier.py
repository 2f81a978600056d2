"""Interface of a method for image classifiers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from core.engine.options.axes import MethodParameters
from core.engine.pruning.filters.coupled_channels import CoupledChannels
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


class FilterMethod(ClassifierMethod):
    """Method that removes filters, and can score them without removing any."""

    @abstractmethod
    def scores(self, network: Network, groups: CoupledChannels) -> Sequence[Tensor]:
        """Return scores [units] of each group of coupled channels; the lowest are removed first."""
