"""Interface of a method for image classifiers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from core.engine.options.base import MethodParameters
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.network import Network


class ClassifierMethod(ABC):
    """A method that removes weights or filters of a loaded model, in place."""

    @abstractmethod
    def __init__(self, parameters: MethodParameters) -> None: ...

    @abstractmethod
    def prune(self, network: Network) -> None:
        """Prune to the network's sparsity.

        It is met exactly as a share of the prunable weights, and as near as entire filters allow as a share of the
        model's parameters.
        """


class FilterMethod(ClassifierMethod):
    """A method that removes filters; its scores are known without removing any."""

    @abstractmethod
    def scores(self, network: Network, groups: CoupledChannels) -> Sequence[Tensor]:
        """Return scores [units] of each group of coupled channels, the lowest of which are removed first."""
