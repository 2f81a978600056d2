"""Memory of pruning an image classifier, whose network is completely in memory: one class for each kind of method.

A method with a memory of its own kind defines it in its `info`. Memory is computed from the model's description, which
includes the facts of a trace of its passes, and the recipe alone, without torch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.engine.evaluation.classifier_memory import MEASURED_AT_ONCE
from core.engine.options.base import MethodParameters
from core.engine.options.iteration import IterationOptions
from core.engine.pruning.classifier_memory import ClassifierMemory, LayerwisePruning, Solver
from core.engine.removals.filters.options import FilterParameters

_P = TypeVar("_P", bound=MethodParameters)
_F = TypeVar("_F", bound=FilterParameters)


@dataclass(frozen=True)
class ClassifierFacts(Generic[_P]):
    """Facts of a job: the memory of the engine's steps on its classifier, checked parameters, sparsity and images.

    `images` is the number of calibration images. For a method that prunes layer by layer, `reads` is the statistic of
    the inputs, and `solver` the memory of its solver.
    """

    memory: ClassifierMemory
    parameters: _P
    sparsity: float
    images: int
    reads: str
    solver: Solver


class ClassifierCost(Generic[_P]):
    """Memory of a method that prunes layer by layer, in one or two passes over the images."""

    def peak_bytes(self, facts: ClassifierFacts[_P]) -> int:
        """Return the most bytes beside the model's weights while it is pruned."""
        options = facts.parameters.propagation_options
        waits, batch = True, MEASURED_AT_ONCE
        if options is not None:
            waits, batch = options.propagation == "in_flight", options.micro_batch or batch
        return facts.memory.layerwise(LayerwisePruning(facts.images, batch, waits, facts.reads, facts.solver))

    def alone_bytes(self, facts: ClassifierFacts[_P]) -> int:
        """Return the most bytes beside the model's weights while the weights of one layer are chosen and zeroed."""
        return self.peak_bytes(facts)


class FilterCost(ClassifierCost[_F], ABC):
    """Memory of a method that removes filters in rounds, with everything coupled to them, and retrains in between."""

    @abstractmethod
    def choosing_bytes(self, facts: ClassifierFacts[_F]) -> int:
        """Return the most bytes beside the model's weights while filters are chosen."""

    @abstractmethod
    def retrain_steps(self, parameters: _F) -> int:
        """Return the number of training steps of a round."""

    def alone_bytes(self, facts: ClassifierFacts[_F]) -> int:
        return max(facts.memory.coupling(), self.choosing_bytes(facts))

    def peak_bytes(self, facts: ClassifierFacts[_F]) -> int:
        memory, options = facts.memory, facts.parameters
        peak = self.alone_bytes(facts)
        if self.retrain_steps(options):
            peak = max(peak, memory.training(options.retrain_batch_size) - memory.prunable)  # no weights are zeroed
        return peak


def retraining_bytes(memory: ClassifierMemory, parameters: IterationOptions) -> int:
    """Return the bytes of training between two cuts."""
    return memory.training(parameters.batch_size) if parameters.retrain_steps else 0
