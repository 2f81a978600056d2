"""Progress of long work: its reports to a listener, and the listener's request to stop."""


class WorkStopped(Exception):
    """Signal that the work was asked to stop, and its progress is saved."""


class Progress:
    """Listener to one piece of work; this base class, which is the default, ignores reports and never stops the work.

    Shares go from 0 to 1.
    """

    def stage(self, name: str) -> None:
        """Begin a stage of the job."""

    def begin_part(self, start: float, end: float, *, of_loops: bool = False) -> None:
        """Begin a part of the work that has a pace of its own, from one share to another.

        With `of_loops`, the counted loops of this process (`core.counting`) are the progress of the part.
        """

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        """Report the finished share of the work, and how many of its blocks or steps are done."""

    def log(self, message: str) -> None:
        """Report a remark for people."""

    def metric(self, name: str, step: int, value: float) -> None:
        """Report a point of a curve."""

    def should_stop(self) -> bool:
        """Return whether the work should stop when its progress is saved."""
        return False

    def raise_if_stopped(self) -> None:
        """Raise WorkStopped if the work should stop; call this only when its progress is saved."""
        if self.should_stop():
            raise WorkStopped


class PartialProgress(Progress):
    """Listener to a part of some work, from one share to another; it passes reports on to the listener of the whole.

    Subclasses change how the part reports.
    """

    def __init__(self, outer: Progress, start: float = 0.0, end: float = 1.0) -> None:
        self.outer = outer
        self._start = start
        self._end = end

    def stage(self, name: str) -> None:
        self.outer.stage(name)

    def begin_part(self, start: float, end: float, *, of_loops: bool = False) -> None:
        self.outer.begin_part(self._outer_share(start), self._outer_share(end), of_loops=of_loops)

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        self.outer.advance(self._outer_share(share), done, of)

    def log(self, message: str) -> None:
        self.outer.log(message)

    def metric(self, name: str, step: int, value: float) -> None:
        self.outer.metric(name, step, value)

    def should_stop(self) -> bool:
        return self.outer.should_stop()

    def _outer_share(self, share: float) -> float:
        """Return the share of the whole at a share of this part."""
        return self._start + (self._end - self._start) * share
