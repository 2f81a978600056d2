"""Spans of windows of text: which tokens of each window are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WindowSpans:
    """Predicted tokens of each window: from the first place up to the end.

    The loss of a window is divided by `counted`, its number of tokens in the dense model's tokenization. Losses, and
    perplexities, of models with different tokens then compare the same text.
    """

    spans: Sequence[tuple[int, int]]
    counted: Sequence[int]

    @property
    def total(self) -> int:
        """Return the number of predicted tokens of all windows."""
        return sum(end - first for first, end in self.spans)
