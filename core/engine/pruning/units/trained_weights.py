"""Weights that a method trains while it chooses what to remove: a file for each block, saved with the selection."""

from collections.abc import Mapping

from torch import Tensor

from core.engine.resume.kinds import SELECTION
from core.engine.resume.store import ResumeStore


class TrainedWeights:
    """Trained tensors of the blocks that have any."""

    def __init__(self, store: ResumeStore) -> None:
        self._store = store

    def write(self, layer: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a block's trained tensors, named relative to the block, in the dtype they are to be saved in."""
        self._store.write(SELECTION, 0, _name(layer), tensors)

    def has(self, layer: int) -> bool:
        """Return True if a block has trained tensors."""
        return self._store.has(SELECTION, 0, _name(layer))

    def over(self, layer: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a block's tensors, with the trained ones in place of the source's."""
        if not self.has(layer):
            return dict(tensors)
        trained = self._store.read(SELECTION, 0, _name(layer))
        assert trained.keys() <= tensors.keys()
        return {**tensors, **trained}


def _name(layer: int) -> str:
    return f"{layer:05d}"
