"""Input of a pruning method: the linear layers that read one tensor, each with the share of weights to remove."""

from dataclasses import dataclass

from torch import Tensor

from core.engine.options.patterns import Pattern


@dataclass(frozen=True)
class LayerTarget:
    """The number of weights to remove from one linear layer: `sparsity` of them, in a pattern.

    `count` overrides that number for the tensor where a ranking over the entire model chose it.
    """

    pattern: Pattern
    sparsity: float
    count: int | None = None

    def of_tensor(self, numel: int) -> int:
        """Return the number of weights to remove from the tensor."""
        return self.count if self.count is not None else round(self.sparsity * numel)

    def keeps_all(self, numel: int) -> bool:
        """Return True where no weight of the tensor is to be removed."""
        return self.pattern.of is None and self.of_tensor(numel) == 0

    def of_row(self, in_features: int) -> int:
        """Return the number of weights to remove from every output row."""
        return round(self.sparsity * in_features)


@dataclass(frozen=True)
class PrunableLinear:
    """One linear layer to prune. `weight_OI` is float32, [out_features, in_features], and not written to.

    `index` is the layer's place among all prunable layers of the model: it seeds what is random.
    """

    name: str
    index: int
    weight_OI: Tensor
    target: LayerTarget
