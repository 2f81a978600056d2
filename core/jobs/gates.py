"""Gates: what a job's figures must keep to."""

import math
from typing import Any

from core.errors import GateMissed
from core.jobs.schemas import Gates


def evaluate_gates(gates: Gates, metrics: dict[str, Any]) -> GateMissed | None:
    """The first gate that a job's metrics miss, None where all are kept. A ratio that is no finite number misses."""
    limit = gates.max_perplexity_ratio
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
