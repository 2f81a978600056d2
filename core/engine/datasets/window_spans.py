"""Spans of windows of text: which tokens of each window are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass


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
