"""Cache of hidden states by block and batch, in memory up to a budget, in scratch files beyond."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from core.engine.models.tensors import load_tensors, write_tensors
from core.engine.pruning.streams.stream import ActivationBudget


class HiddenStateCache:
    """Hidden states by block and batch, each returned on the device that it was stored from."""

    def __init__(self, budget: ActivationBudget, folder: Path) -> None:
        self._budget = budget
        self._folder = folder
        self._held: dict[tuple[int, int], Tensor] = {}
        self._devices: dict[tuple[int, int], torch.device] = {}

    def put(self, block: int, batch: int, tensor: Tensor) -> None:
        """Store a tensor, in place of an earlier one of this block and batch."""
        self._remove(block, batch)
        if self._budget.take(tensor.nbytes):
            self._held[block, batch] = tensor
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_tensors(self._file(block, batch), {"hidden": tensor})
            self._devices[block, batch] = tensor.device

    def get(self, block: int, batch: int) -> Tensor:
        hidden = self._held.get((block, batch))
        if hidden is not None:
            return hidden
        device = self._devices[block, batch]
        return load_tensors(self._file(block, batch))["hidden"].to(device)

    def take(self, block: int, batch: int) -> Tensor:
        """Return a tensor and remove it from the cache."""
        tensor = self.get(block, batch)
        self._remove(block, batch)
        return tensor

    def close(self) -> None:
        """Remove all tensors."""
        for block, batch in [*self._held, *self._devices]:
            self._remove(block, batch)

    def _remove(self, block: int, batch: int) -> None:
        """Remove a tensor, if there is one, from memory or from the disk."""
        tensor = self._held.pop((block, batch), None)
        if tensor is not None:
            self._budget.give(tensor.nbytes)
        elif self._devices.pop((block, batch), None) is not None:
            self._file(block, batch).unlink()

    def _file(self, block: int, batch: int) -> Path:
        return self._folder / f"hidden-{block:05d}-{batch:04d}.safetensors"


@contextmanager
def hidden_state_cache(budget: ActivationBudget, folder: Path) -> Iterator[HiddenStateCache]:
    """Yield a cache; at the end of the context its tensors are removed, and their bytes go back to the budget."""
    cache = HiddenStateCache(budget, folder)
    try:
        yield cache
    finally:
        cache.close()
