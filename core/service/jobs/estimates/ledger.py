"""Ledger of the bytes that a device holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from core.engine.evaluation.forward_memory import SMALL_TENSORS


class Ledger:
    """Bytes held, and the most that were."""

    def __init__(self) -> None:
        self.current = 0
        self.peak = 0

    @property
    def estimate(self) -> int:
        """Return the most bytes that were held, with small tensors among them."""
        return ceil(self.peak * SMALL_TENSORS)

    def reach(self, nbytes: float) -> None:
        """Note that `nbytes` more bytes are held for a moment."""
        self.peak = max(self.peak, self.current + ceil(nbytes))

    def take(self, nbytes: float) -> None:
        """Hold `nbytes` more bytes."""
        self.current += ceil(nbytes)
        self.peak = max(self.peak, self.current)

    @contextmanager
    def holding(self, nbytes: float) -> Iterator[None]:
        """Hold `nbytes` more bytes inside the context, and release at its end all that was taken in it."""
        before = self.current
        self.take(nbytes)
        try:
            yield
        finally:
            self.current = before
