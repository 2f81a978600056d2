"""Tensors of a model that files hold in parts: stacks of experts, each of which has matrices of its own there."""

from collections.abc import Iterator
from dataclasses import dataclass

from core.engine.checkpoints.safetensors_header import TensorEntry


@dataclass(frozen=True)
class StackedEntry(TensorEntry):
    """Stack [members, rows, columns] of matrices: `parts` has for each member the tensors whose rows follow in it.

    The place in a file is that of the first part alone.
    """

    parts: tuple[tuple[TensorEntry, ...], ...]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self)

    def __iter__(self) -> Iterator[TensorEntry]:
        """Yield all parts, in order."""
        for member in self.parts:
            yield from member
