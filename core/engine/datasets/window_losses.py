"""Losses of a model, or of a file, on the windows of an evaluation set."""

from pydantic import BaseModel, ConfigDict, Field


class WindowLosses(BaseModel):
    """Losses of the windows of an evaluation set in nats.

    A window's loss is the sum over its predicted tokens, divided by the mean number of predicted tokens of all windows
    of the set. `windows` are the numbers of the windows; None: all of them.
    """

    model_config = ConfigDict(frozen=True)

    losses: tuple[float, ...]
    windows: tuple[int, ...] | None = Field(None, exclude_if=lambda windows: windows is None)

    @property
    def by_window(self) -> dict[int, float]:
        """Return the losses by the number of the window."""
        windows = range(len(self.losses)) if self.windows is None else self.windows
        return dict(zip(windows, self.losses, strict=True))
