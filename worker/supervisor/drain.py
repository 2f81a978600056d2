"""Drain of a worker, shared by its parent and its pool's process: either can begin it, and it is never undone."""

import mmap

_BYTES = 1024


class Drain:
    """State of a drain: whether it began, and the reason if nobody asked for it.

    It is created before the pool's process is forked, so that a process that is forked after the drain began knows too.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _BYTES)

    @property
    def has_begun(self) -> bool:
        return bool(self._memory[0])

    @property
    def reason(self) -> str | None:
        """Return why the worker drains of its own accord; None if it was asked to drain, or does not drain."""
        return self._memory[1:].rstrip(b"\0").decode(errors="ignore") or None

    def begin(self, reason: str | None = None) -> None:
        """Begin the drain; the first reason is kept."""
        if not self.has_begun and reason is not None:
            written = reason.encode()[: _BYTES - 1]
            self._memory[1 : 1 + len(written)] = written
        self._memory[0] = 1
