"""Rows of a report by layer: as a table, and as the lines of a chart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.engine.cuts import LAYER, unit_rows
from core.pipeline.reports.report import Report

KINDS = 7
"""Maximum number of lines in the chart, one per colour; with more kinds of layers there is a single line."""


@dataclass(frozen=True)
class LayerFigure:
    """One layer, or its heads or channels: the removed share, and the error where it was measured."""

    name: str
    kind: str
    layer: int
    shape: str
    sparsity: float
    error: float | None


def layer_figures(report: Report) -> list[LayerFigure]:
    """Return the figures of each layer, in the model's order."""
    errors = {} if report.method is None else report.method.reconstruction_errors
    return [_figure(row, errors) for row in report.layers]


def chart_height(report: Report) -> int:
    """Return the height of the layer chart in pixels at a width of 800."""
    units = unit_rows(report.layers)
    if units:
        panels = len({row["kind"] for row in units} - {LAYER}) + any(row.get("cost") is not None for row in units)
        return 80 + 150 * max(1, panels + len(report.panels))
    return 560 if any(each.error is not None for each in layer_figures(report)) else 320


def by_kind(figures: Sequence[LayerFigure]) -> dict[str, list[LayerFigure]]:
    """Return the layers grouped by line of the chart: q_proj of all layers, k_proj of all, and so on."""
    kinds: dict[str, list[LayerFigure]] = {}
    for figure in figures:
        kinds.setdefault(figure.kind, []).append(figure)
    return kinds if len(kinds) <= KINDS else {"": list(figures)}


def _figure(row: Mapping[str, Any], errors: Mapping[str, float | None]) -> LayerFigure:
    if "before" in row:  # Heads or channels of a decoder layer.
        removed = 1 - row["after"] / row["before"] if row["before"] else 0.0
        shape = f"{row['before']:,} → {row['after']:,} {row['kind']}"
        return LayerFigure(row["name"], row["kind"], row["layer"], shape, removed, None)
    shape = f"{row['out_features']:,} × {row['in_features']:,}"
    kept = row.get("kept_shape")
    if kept is not None and kept[0] != row["out_features"]:
        shape += f" → {' × '.join(f'{each:,}' for each in kept)}"
    error = row.get("reconstruction_error", errors.get(row["name"]))
    return LayerFigure(row["name"], row["name"].rsplit(".", 1)[-1], row["layer"], shape, row["sparsity"], error)
