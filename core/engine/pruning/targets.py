"""Input of a pruning method: the linear layers that read one tensor, each with its number of weights to remove."""

from dataclasses import dataclass

from torch import Tensor

from core.engine.options.patterns import Pattern


@dataclass(frozen=True)
class LayerTarget:
    """Number of weights to remove from one linear layer: a share `sparsity`, in a pattern.

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
    """Linear layer to prune. `weight_OI` is float32, [out_features, in_features], and must not be changed.

    `index` is the layer's place among all prunable layers of the model; it seeds random numbers.
    """

    name: str
    index: int
    weight_OI: Tensor
    target: LayerTarget
