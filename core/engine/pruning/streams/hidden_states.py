"""Hidden states by the number of passed blocks and micro-batch: in memory up to a budget, in files beyond."""

import torch
from torch import Tensor

from core.engine.resume.kinds import BLOCK
from core.engine.resume.store import ResumeStore


class ActivationBudget:
    """Bytes of hidden states that all streams may keep in memory; the work folder holds the rest."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        self.used -= size


class HiddenStates:
    """Hidden states of one set of tokens, each returned on `device`.

    The files in `store` begin with `name`. Those of a record stay, so that the next attempt resumes from them: each
    state behind a block is written, whether it is in memory or not.
    """

    def __init__(
        self, name: str, store: ResumeStore, budget: ActivationBudget, device: torch.device, *, is_record: bool = False
    ) -> None:
        self._name = name
        self._store = store
        self._budget = budget
        self._device = device
        self._is_record = is_record
        self._held: dict[tuple[int, int], Tensor] = {}
        self._written: set[tuple[int, int]] = set()

    def has(self, done: int, batch: int) -> bool:
        return (done, batch) in self._held or (done, batch) in self._written

    def put(self, done: int, batch: int, hidden: Tensor) -> None:
        """Store the hidden states of a micro-batch behind `done` blocks, in place of earlier ones."""
        self.remove(done, batch)
        fits = self._budget.take(hidden.nbytes)
        if fits:
            self._held[done, batch] = hidden
        if not fits or (done and self._is_record):
            self._store.write(BLOCK, done, self._file(batch), {"hidden": hidden})
            self._written.add((done, batch))

    def get(self, done: int, batch: int) -> Tensor:
        """Return hidden states that were stored, now or in the record that the store adopted."""
        in_memory = self._held.get((done, batch))
        return self.read(done, batch).to(self._device) if in_memory is None else in_memory

    def read(self, done: int, batch: int) -> Tensor:
        """Read hidden states from their file into main memory."""
        return self._store.read(BLOCK, done, self._file(batch))["hidden"]

    def remove(self, done: int, batch: int) -> None:
        """Remove hidden states, if there are any, from memory and, unless it is a record, from the disk."""
        in_memory = self._held.pop((done, batch), None)
        if in_memory is not None:
            self._budget.give(in_memory.nbytes)
        if (done, batch) in self._written:
            self._written.remove((done, batch))
            if not self._is_record:
                self._store.discard(BLOCK, done, self._file(batch))

    def close(self) -> None:
        """Remove all hidden states."""
        for done, batch in {*self._held, *self._written}:
            self.remove(done, batch)

    def _file(self, batch: int) -> str:
        return f"{self._name}-{batch:04d}"
