"""Tensors that a method computes for blocks while it chooses units: a file for each, saved with the selection."""

from collections.abc import Mapping

from torch import Tensor

from core.engine.resume.kinds import SELECTION
from core.engine.resume.store import ResumeStore


class PlannedTensors:
    """Tensors of blocks that a method computes in its plan, and reads again when it prunes the block."""

    _prefix = "planned-"

    def __init__(self, store: ResumeStore) -> None:
        self._store = store

    def write(self, layer: int, tensors: Mapping[str, Tensor]) -> None:
        self._store.write(SELECTION, 0, self._name(layer), tensors)

    def has(self, layer: int) -> bool:
        return self._store.has(SELECTION, 0, self._name(layer))

    def read(self, layer: int) -> dict[str, Tensor]:
        """Return a block's tensors, empty where none were written."""
        return self._store.read(SELECTION, 0, self._name(layer)) if self.has(layer) else {}

    def _name(self, layer: int) -> str:
        return f"{self._prefix}{layer:05d}"


class TrainedWeights(PlannedTensors):
    """Weights of blocks that a method trains while it chooses, named within the block, in the dtype to save."""

    _prefix = ""

    def over(self, layer: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a block's tensors, with the trained ones in place of the source's."""
        trained = self.read(layer)
        assert trained.keys() <= tensors.keys()
        return {**tensors, **{name: each.to(tensors[name].device) for name, each in trained.items()}}
