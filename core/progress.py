"""Progress of work that takes long: what it reports to whoever watches, and how it learns that it should stop."""


class WorkStopped(Exception):
    """The work was asked to stop, and what it had done is saved."""


class Progress:
    """Listener to one piece of work, which hears nothing and never stops it: the default, and the base of all others.

    Shares go from 0 to 1.
    """

    def stage(self, name: str) -> None:
        """Begin a stage of the job."""

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        """Report the share of the work that is done, and by which of how many blocks or steps."""

    def log(self, message: str) -> None:
        """Report a remark for people."""

    def metric(self, name: str, step: int, value: float) -> None:
        """Report a point of a curve."""

    def should_stop(self) -> bool:
        """Return True once the work should stop as soon as what it has done is saved."""
        return False

    def raise_if_stopped(self) -> None:
        """Raise WorkStopped once the work should stop; to be called where all it has done is saved."""
        if self.should_stop():
            raise WorkStopped


class PartialProgress(Progress):
    """Listener to a part of some work, from one share of it to another; all else goes on to the listener of the whole.

    Subclasses change what the part reports.
    """

    def __init__(self, outer: Progress, start: float = 0.0, end: float = 1.0) -> None:
        self.outer = outer
        self._start = start
        self._end = end

    def stage(self, name: str) -> None:
        self.outer.stage(name)

    def advance(self, share: float, done: int | None = None, of: int | None = None) -> None:
        self.outer.advance(self._start + (self._end - self._start) * share, done, of)

    def log(self, message: str) -> None:
        self.outer.log(message)

    def metric(self, name: str, step: int, value: float) -> None:
        self.outer.metric(name, step, value)

    def should_stop(self) -> bool:
        return self.outer.should_stop()
