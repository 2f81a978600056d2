"""Results of the runner's tasks that prune, measure or train, as they are sent to the supervisor."""

from pathlib import Path

from pydantic import BaseModel

from core.pipeline.reports.report import PeakMemory, RecoveryReport, Report
from secateur_wire.base import Number
from secateur_wire.metrics import Metrics


class PruneOutput(BaseModel):
    """A model that was pruned, or measured. `expected` is what the reload check compares with, None without a model."""

    metrics: Metrics
    report: Report
    expected: Path | None = None


class RecoveryOutput(BaseModel):
    """A model that was trained. `perplexity` is by text, None where it is no finite number.

    `zeros` are those of each layer before and after; `expected` is what the reload check compares with.
    """

    perplexity: dict[str, Number | None]
    zeros: dict[str, tuple[int, int]]
    expected: Path
    recovery: RecoveryReport
    peak_memory: PeakMemory | None = None
