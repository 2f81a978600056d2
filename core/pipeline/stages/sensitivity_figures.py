"""Figures of the sensitivity of a model, of whatever kind: their file and chart, and those in the list of jobs."""

from pathlib import Path

from core.engine.options.sensitivity_curves import Sensitivity
from secateur_wire.metrics import LayerSensitivity, Metrics

FIGURES = "sensitivity.json"
CHART = "sensitivity.svg"
NO_MODEL = "Nothing was pruned and no model was made, so there is none to reload, verify or time."


def write_sensitivity(sensitivity: Sensitivity, folder: Path) -> None:
    """Write the figures and their chart."""
    from core.pipeline.reports.charts import sensitivity_chart  # slow to load, and for such jobs alone

    folder.mkdir(parents=True, exist_ok=True)
    (folder / FIGURES).write_text(sensitivity.model_dump_json(indent=2, exclude_none=True) + "\n", "utf-8")
    (folder / CHART).write_text(sensitivity_chart(sensitivity), "utf-8")


def sensitivity_metrics(sensitivity: Sensitivity) -> Metrics:
    """Return the figures for a list of jobs: the dense model's, and which layer lost most at the highest rate."""
    most = max(sensitivity.curves, key=lambda curve: curve.points[-1].loss)
    return Metrics(
        sensitivity=LayerSensitivity(
            dense=sensitivity.dense.model_dump(mode="json", exclude_none=True),
            layers=len(sensitivity.curves),
            rates=len(sensitivity.rates),
            most_sensitive=most.name,
        )
    )
