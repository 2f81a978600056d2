"""Cut: all facts of a request that a removal needs, without its method and its job."""

from dataclasses import dataclass

from core.device_kinds import CPU
from core.engine.architectures.description import Description, ModelDescription
from core.engine.architectures.unit_counts import CostLimit
from core.engine.options.axes import MethodParameters
from core.engine.options.patterns import Pattern
from secateur_wire.job_body import Layout


@dataclass(frozen=True)
class Cut:
    """Model, options, and the share to remove.

    `sparsity` is a share of the prunable weights where weights become zero, and of the model's parameters otherwise.
    With `at_least` no less is removed; without it the nearest possible share is. Widths are multiples of `round_to`
    where the options leave it open. With `costs` the sparsity is open: what goes loses least within their limit.
    """

    description: Description
    options: MethodParameters
    sparsity: float
    pattern: Pattern
    layout: Layout = "uniform"
    at_least: bool = False
    round_to: int = CPU.round_to
    costs: CostLimit | None = None

    @property
    def language_model(self) -> ModelDescription:
        """Return the language model's description. Only removals of weights and filters also apply to classifiers."""
        return self.description.language_model
