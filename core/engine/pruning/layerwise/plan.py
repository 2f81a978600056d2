"""Plan of a layer-wise pruning pass, with every choice resolved."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from core.engine.architectures.layer_shape import LinearShape
from core.engine.options.compensation import Compensation
from core.engine.options.patterns import Pattern
from core.engine.options.propagation import PropagationOptions
from core.engine.pruning.plan import PruningPlan
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.protocols.quantiser import Quantiser
from core.engine.pruning.targets import LayerTarget
from secateur_wire.base import JsonObject


@dataclass(frozen=True, kw_only=True)
class LayerwisePlan(PruningPlan):
    """Choices of one pass that sets weights to zero.

    `sparsities` has one sparsity per decoder layer; `counts` has exact numbers of weights where a ranking over the
    entire model chose them; `rates` has one share per linear layer where each has its own. With a `rounding` all
    linear layers of the blocks are quantised.
    """

    pattern: Pattern
    linears: tuple[LinearShape, ...]
    sparsities: tuple[float, ...]
    counts: dict[str, int] | None
    method: Method = field(compare=False)
    rates: dict[str, float] | None = None
    rounding: Quantiser | None = None

    @property
    def _propagation_options(self) -> PropagationOptions:
        options = self.parameters.propagation_options
        assert options is not None
        return options

    @property
    def propagation(self) -> str:
        return self._propagation_options.propagation

    @property
    def compensation(self) -> Compensation | None:
        options = self.parameters.compensation_options
        return None if options is None else options.compensation

    @property
    def measured_allocation(self) -> str | None:
        """Allocation that needs a pass over the calibration tokens."""
        options = self.parameters.allocation_options
        return None if options is None else options.measured_allocation

    @property
    def weight_reads(self) -> int:
        """Number of times the model's weights are read: once, plus one for OWL, two for gradients or exact ranking."""
        allocating = {"owl": 1, "fisher": 2, None: 0}[self.measured_allocation]
        return 1 + allocating + 2 * (self.counts is not None)

    @property
    def choices(self) -> JsonObject:
        return {"pattern": self.pattern.text, **({} if self.rounding is None else {"rounding": self.rounding.facts})}

    @property
    def settings(self) -> JsonObject:
        return {"propagation": self.propagation}

    def target(self, linear: LinearShape) -> LayerTarget:
        """Return the pattern and sparsity of one linear layer."""
        sparsity = self.sparsities[linear.layer] if linear.layer < len(self.sparsities) else self.sparsity
        if self.rates is not None:
            sparsity = self.rates.get(linear.name, self.sparsity)
        return LayerTarget(self.pattern, sparsity, self.counts[linear.name] if self.counts is not None else None)

    def with_sparsities(self, sparsities: Sequence[float]) -> "LayerwisePlan":
        return replace(self, sparsities=tuple(sparsities))

    def with_rates(self, rates: dict[str, float]) -> "LayerwisePlan":
        """Return the plan with a share for each linear layer; a block's sparsity is then the mean over its layers.

        Layers without a rate, such as experts, keep the plan's own sparsity.
        """
        weights = [[each for each in self.linears if each.layer == index] for index in range(len(self.sparsities))]
        averages = [
            sum(rates.get(each.name, self.sparsity) * each.numel for each in block) / sum(each.numel for each in block)
            if block
            else self.sparsity
            for block in weights
        ]
        return replace(self, rates=rates, sparsities=tuple(averages))

    def micro_batch(self, length: int) -> int:
        """Return the number of sequences of `length` tokens per forward."""
        return self._propagation_options.micro_batch or super().micro_batch(length)
