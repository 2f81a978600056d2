"""Windows of an evaluation set: the losses on them, and the spans of tokens that are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class WindowSpans:
    """Predicted tokens of each window: from the first place up to the end.

    `counted` is each window's number of tokens in the dense model's tokenization. Losses are divided by these
    numbers, so losses and perplexities of models with different tokens compare the same text.
    """

    spans: Sequence[tuple[int, int]]
    counted: Sequence[int]

    @property
    def total(self) -> int:
        """Return the number of predicted tokens of all windows."""
        return sum(end - first for first, end in self.spans)
