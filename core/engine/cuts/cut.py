"""Cut: all that a removal has to know of a request, without its method and its job."""

from dataclasses import dataclass

from core.device_kinds import CPU
from core.engine.architectures.describe import Description
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.heterogeneous import Layout
from core.engine.options.base import MethodParameters
from core.engine.options.patterns import Pattern


@dataclass(frozen=True)
class Cut:
    """Model, options, and how much is to go.

    `sparsity` is a share of the prunable weights where weights become zero, of the model's parameters elsewhere. With
    `at_least` no less of it goes, else the nearest there is. `is_timed`: a shape of that sparsity was timed. Widths are
    multiples of `round_to` where the options leave it open.
    """

    description: Description
    options: MethodParameters
    sparsity: float
    pattern: Pattern
    layout: Layout = "uniform"
    at_least: bool = False
    is_timed: bool = False
    round_to: int = CPU.round_to

    @property
    def language_model(self) -> ModelDescription:
        """Return the description of a language model, which everything but weights and filters goes from."""
        return self.description.language_model
