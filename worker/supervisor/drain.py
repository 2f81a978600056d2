"""The drain of a worker, shared by its parent and its pool's process: begun once, by either, and never taken back."""

import mmap

_BYTES = 1024


class Drain:
    """State of a drain: whether it began, and why where nobody asked for it.

    Made before the pool's process is forked: one that was forked since the drain began knows too.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _BYTES)

    @property
    def has_begun(self) -> bool:
        return bool(self._memory[0])

    @property
    def reason(self) -> str | None:
        """Return why the worker drains of its own accord; None where it was asked to, or does not."""
        return self._memory[1:].rstrip(b"\0").decode(errors="ignore") or None

    def begin(self, reason: str | None = None) -> None:
        """Begin; the first reason stays."""
        if not self.has_begun and reason is not None:
            written = reason.encode()[: _BYTES - 1]
            self._memory[1 : 1 + len(written)] = written
        self._memory[0] = 1
