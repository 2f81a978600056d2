"""Ledger of the bytes that a device holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil


class Ledger:
    """Bytes held, and the most that were."""

    def __init__(self) -> None:
        self.held = 0
        self.peak = 0

    def reach(self, nbytes: float) -> None:
        """Note that so many bytes are taken beside what is held, and given back."""
        self.peak = max(self.peak, self.held + ceil(nbytes))

    def take(self, nbytes: float) -> None:
        """Hold so many bytes more."""
        self.held += ceil(nbytes)
        self.peak = max(self.peak, self.held)

    @contextmanager
    def holding(self, nbytes: float) -> Iterator[None]:
        """Hold so many bytes inside the context, and at its end what was held at its beginning."""
        before = self.held
        self.take(nbytes)
        try:
            yield
        finally:
            self.held = before
