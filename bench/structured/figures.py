"""Figures of the structured bench's cells. Loads no torch."""

from dataclasses import dataclass
from typing import Any

Answers = dict[str, dict[str, float]]
"""Accuracies of each zero-shot task, with their standard errors, and how many questions there were."""


@dataclass(frozen=True)
class Origin:
    """Origin of a cell's figures: the machine and its threads, the releases, and a digest of the code that pruned."""

    machine: str
    threads: int
    releases: str
    code: str


@dataclass(frozen=True)
class Figures:
    """Figures of one cell: `seconds` of choosing and cutting, `recovery_seconds` of training; `processor_seconds` and
    `peak_bytes` are of the processes that did it, `parameters` count all of the model that came out, tied ones once.
    """

    seconds: float
    recovery_seconds: float | None
    processor_seconds: float
    peak_bytes: int
    parameters: int
    perplexity: dict[str, float]
    config: dict[str, Any]
    sliced_width: int | None
    notes: list[str]
    measured: str
    origin: Origin

    def is_of_the_same_model(self, other: "Figures") -> bool:
        """Return whether both are of one pruned model, as far as parameters and perplexity tell."""
        return self.parameters == other.parameters and self.perplexity == other.perplexity


@dataclass(frozen=True)
class Dense:
    """The model before, judged as those that were pruned."""

    parameters: int
    perplexity: dict[str, float]


@dataclass(frozen=True)
class Ratio:
    """Pruned ÷ dense of milliseconds: the median over rounds, and their interquartile range."""

    ratio: float
    spread: float
