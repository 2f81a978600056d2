"""Slices of tensors with the features of units: in a tensor that all units share, or in a stack of experts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class UnitSlice:
    """Tensor of a block and the dimension of it that holds units.

    `runs` are contiguous ranges of that dimension: (features of one unit, 0), or (0, features no unit owns).
    """

    name: str
    dimension: int
    units: int
    runs: tuple[tuple[int, int], ...]

    @property
    def linear(self) -> str:
        """Return the name of the layer that has this weight or bias."""
        return self.name.rpartition(".")[0]

    def features(self, kept: Tensor) -> Tensor:
        """Return the indices, along the dimension, of the features of the units `kept`, in stored order."""
        stretches, start = [], 0
        for size, unowned in self.runs:
            if size:
                stretches.append((start + kept[:, None] * size + torch.arange(size)).flatten())
            else:
                stretches.append(torch.arange(start, start + unowned))
            start += size * self.units + unowned
        return torch.cat(stretches)

    def per_feature(self, values: Tensor) -> Tensor:
        """Return a tensor's values summed over every other dimension: [features]."""
        return values if values.dim() == 1 else values.sum(1 - self.dimension)

    def spread(self, values_U: Tensor, unowned: float) -> Tensor:
        """Expand a value of each unit to the features it owns, with `unowned` for the others: [features]."""
        stretches = [
            values_U.repeat_interleave(size) if size else values_U.new_full((rest,), unowned)
            for size, rest in self.runs
        ]
        return torch.cat(stretches)

    def per_unit(self, features: Tensor) -> Tensor:
        """Return a value of each feature summed over its unit: [units]."""
        total, start = features.new_zeros(self.units), 0
        for size, unowned in self.runs:
            end = start + size * self.units + unowned
            if size:
                total += features[start:end].reshape(self.units, size).sum(1)
            start = end
        return total

    def taken(self, tensor: Tensor, kept: Tensor) -> Tensor:
        """Return a tensor with only the features of the units `kept`."""
        return tensor.index_select(self.dimension, self.features(kept).to(tensor.device)).contiguous()


@dataclass(frozen=True)
class SetSlice(UnitSlice):
    """Slice with some of a layer's units: those of some of its sets, from unit `first` on, out of `total`.

    Its methods take and return values of all `total` units.
    """

    first: int
    total: int

    def features(self, kept: Tensor) -> Tensor:
        return super().features(self._own(kept))

    def spread(self, values_U: Tensor, unowned: float) -> Tensor:
        return super().spread(values_U[self.first : self.first + self.units], unowned)

    def per_unit(self, features: Tensor) -> Tensor:
        return self.among_all(super().per_unit(features))

    def _own(self, kept: Tensor) -> Tensor:
        return kept[(kept >= self.first) & (kept < self.first + self.units)] - self.first

    def among_all(self, own_U: Tensor) -> Tensor:
        """Return a vector over all units with the given values of the slice's own units, else zero: [total]."""
        all_U = own_U.new_zeros(self.total)
        all_U[self.first : self.first + self.units] = own_U
        return all_U


@dataclass(frozen=True)
class StackSlice(SetSlice):
    """Slice of a stack of all experts' matrices, or of their biases; `dimension` and `runs` are those of one expert.

    Its units are those of each expert in turn. Features are [experts, features].
    """

    experts: int

    def features(self, kept: Tensor) -> Tensor:
        own_EU = self._own(kept).reshape(self.experts, -1) % (self.units // self.experts)
        return torch.stack([self._of_one.features(each) for each in own_EU])

    def per_feature(self, values: Tensor) -> Tensor:
        return values if values.dim() == 2 else values.sum(2 - self.dimension)

    def spread(self, values_U: Tensor, unowned: float) -> Tensor:
        own_EU = values_U[self.first : self.first + self.units].reshape(self.experts, -1)
        return torch.stack([self._of_one.spread(each, unowned) for each in own_EU])

    def per_unit(self, features: Tensor) -> Tensor:
        return self.among_all(torch.cat([self._of_one.per_unit(each) for each in features]))

    def taken(self, tensor: Tensor, kept: Tensor) -> Tensor:
        rows_EF = self.features(kept).to(tensor.device)
        dimension = 0 if tensor.dim() == 2 else self.dimension
        return torch.stack(
            [one.index_select(dimension, rows) for one, rows in zip(tensor.unbind(), rows_EF.unbind(), strict=True)]
        )

    @contextmanager
    def zeroed(self, stack: Tensor, kept: Tensor) -> Iterator[None]:
        """Zero the features of the units that are not `kept` in a stack, inside the context."""
        before: list[tuple[Tensor, Tensor, Tensor]] = []
        for matrix, rows in zip(stack.data, self.features(kept), strict=True):
            is_removed = torch.ones(matrix.shape[self.dimension], dtype=torch.bool)
            is_removed[rows] = False
            removed = is_removed.nonzero().flatten().to(matrix.device)
            before.append((matrix, removed, matrix.index_select(self.dimension, removed)))
            matrix.index_fill_(self.dimension, removed, 0)
        try:
            yield
        finally:
            for matrix, removed, values in before:
                matrix.index_copy_(self.dimension, removed, values)

    @property
    def _of_one(self) -> UnitSlice:
        return UnitSlice(self.name, self.dimension, self.units // self.experts, self.runs)
