"""Progress that a test watches, and may stop."""

from core.progress import Progress


class Watching(Progress):
    """Keeps what is reported, and stops the work once it has advanced `stop_after` times."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.shares: list[float] = []
        self.done: list[int | None] = []
        self.logs: list[str] = []
        self.parts: list[tuple[float, float]] = []
        self._stop_after = stop_after

    def begin_part(self, start: float, end: float, *, of_loops: bool = False) -> None:
        self.parts.append((start, end))

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        self.shares.append(share)
        self.done.append(done)

    def log(self, message: str) -> None:
        self.logs.append(message)

    def should_stop(self) -> bool:
        return self._stop_after is not None and len(self.shares) >= self._stop_after
