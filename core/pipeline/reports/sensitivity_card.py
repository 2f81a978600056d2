"""README.md of a sensitivity job's artifact: the measurement, its chart and table, and how to use them."""

import json

from core.engine.options.sensitivity import Sensitivity, SensitivityPoint
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.markdown import plain
from core.pipeline.reports.report import Report


def sensitivity_card(recipe: Recipe, report: Report) -> str:
    """Return the card of a sensitivity job, in Markdown, from its recipe and report."""
    sensitivity = Sensitivity.model_validate(report.sensitivity)
    what = "layer" if sensitivity.scope == "layer" else "linear layer"
    figure = sensitivity.model_task.quality
    measured = ", ".join(
        f"{name.replace('_', ' ')} {plain(str(value))}" for name, value in sensitivity.measured_on.items()
    )
    lines = [
        f"# Sensitivity of {plain(recipe.model)} to {plain(sensitivity.method)}",
        "",
        f"The {figure} when one {what} alone is pruned ({sensitivity.pattern}) and all others are dense. Measured on "
        f"{measured}. Dense: loss {sensitivity.dense.loss:.4f} nats, {figure} {_shown(sensitivity.dense)}.",
        "",
        "![Loss against pruning rate of each layer](sensitivity.svg)",
        "",
        f"| {what} | weights | " + " | ".join(f"{rate:.0%}" for rate in sensitivity.rates) + " |",
        "|---|---|" + "---|" * len(sensitivity.rates),
        *(
            f"| {plain(curve.name)} | {curve.weights:,} | " + " | ".join(_shown(point) for point in curve.points) + " |"
            for curve in sensitivity.curves
        ),
        "",
        *(f"- {plain(note)}" for note in report.notes),
        "",
        "`sensitivity.json` holds all figures. A later job of the same model takes its layers' rates from them: "
        f'`"parameters": {{"allocation": "job:{report.job}"}}`.',
        "",
        "The job body that reproduces this run; `secateur.json` holds it with every default, and the whole report:",
        "",
        "```json",
        json.dumps(recipe.shown_body(), indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)


def _shown(point: SensitivityPoint) -> str:
    if point.perplexity is not None:
        return f"{point.perplexity:.4g}"
    return f"{point.accuracy:.2%}" if point.accuracy is not None else f"{point.loss:.4g}"
