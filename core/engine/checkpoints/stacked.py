"""Stacks of experts: tensors of a model that files store as separate matrices of each expert."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.engine.checkpoints.safetensors_header import TensorEntry


@dataclass(frozen=True)
class StackedEntry(TensorEntry):
    """Stack [members, rows, columns] of matrices: `parts` has the tensors of each member, whose rows are concatenated.

    The position in a file is the first part's.
    """

    parts: tuple[tuple[TensorEntry, ...], ...]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self)

    def __iter__(self) -> Iterator[TensorEntry]:
        for member in self.parts:
            yield from member
