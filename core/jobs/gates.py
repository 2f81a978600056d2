"""Gates: what a job's figures must keep to."""

import math
from typing import Any

from core.errors import GateMissed
from core.jobs.schemas import Gates


def evaluate_gates(gates: Gates, metrics: dict[str, Any]) -> GateMissed | None:
    """The first gate that a job's metrics miss, None where all are kept. A ratio that is no finite number misses."""
    return _missed_perplexity(gates.max_perplexity_ratio, metrics) or _missed_accuracy(gates.max_accuracy_drop, metrics)


def _missed_perplexity(limit: float | None, metrics: dict[str, Any]) -> GateMissed | None:
    if limit is None:
        return None
    for dataset, figures in metrics.get("perplexity", {}).items():
        ratio = figures.get("ratio")
        kept = isinstance(ratio, int | float) and math.isfinite(ratio) and ratio <= limit
        if not kept:
            shown = f"{ratio:.4g}" if isinstance(ratio, int | float) else "not finite"
            return GateMissed(
                f"the perplexity ratio on {dataset} is {shown}, the gate allows {limit:g}",
                param="gates.max_perplexity_ratio",
            )
    return None


def _missed_accuracy(limit: float | None, metrics: dict[str, Any]) -> GateMissed | None:
    if limit is None:
        return None
    for dataset, figures in metrics.get("accuracy", {}).items():
        drop = figures["dense"] - figures["pruned"]
        if not drop <= limit:
            return GateMissed(
                f"top-1 accuracy on {dataset} fell by {drop:.4f}, from {figures['dense']:.4f} to "
                f"{figures['pruned']:.4f}; the gate allows {limit:g}",
                param="gates.max_accuracy_drop",
            )
    return None
