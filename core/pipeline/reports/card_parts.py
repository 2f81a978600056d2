"""Parts of the model card that depend on the model's task."""

from typing import ClassVar, Protocol

from core.pipeline.reports.report import RecoveryReport, Report
from secateur_wire.metrics import Latency, MeasuredAccuracy, Metrics, Timing, latency_noise, with_noise


class CardParts(Protocol):
    """Sections of a card, each as lines of Markdown."""

    pipeline_tag: ClassVar[str]
    tags: ClassVar[tuple[str, ...]]

    def figures(self, metrics: Metrics, *, pruned: bool) -> list[str]:
        """Return table rows of the quality figures that were measured."""

    def recovery(self, recovery: RecoveryReport, *, has_zeros: bool) -> list[str]:
        """Return how the model was trained after pruning, and what happened to its zeros."""

    def latencies(self, latency: Latency) -> list[str]:
        """Return table rows of the measured latencies."""

    def how_to_open(self, report: Report) -> list[str]:
        """Return the code that opens the artifact's folder."""


def with_errors(figure: MeasuredAccuracy) -> tuple[str, str]:
    """Return the accuracy of both models, each with its standard error."""
    return f"{figure.dense:.2%} ± {figure.dense_stderr:.2%}", f"{figure.pruned:.2%} ± {figure.pruned_stderr:.2%}"


def ratio_of_times(row: Timing) -> str:
    """Return pruned ÷ dense with its noise; it is called unproven if the noise is larger than the difference."""
    if row.ratio is None:
        return "not measured"
    return with_noise(f"× {row.ratio:.3f}", latency_noise(row.spread), row.ratio)
