"""Picture of a smaller model: the units that each layer keeps, the removed layers, and the costs of both."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from core.engine.cuts import LAYER, unit_rows
from core.engine.removals.experts import SharePanel
from core.pipeline.reports.drawing import COLOURS, GRID, as_svg, dress, open_figure
from core.pipeline.reports.report import Report

_STYLES = {"before": ("o", "#767676"), "removed": ("x", COLOURS[1]), "after": ("o", COLOURS[0])}
"""Marker and colour of the points."""


@dataclass(frozen=True)
class _KeptUnits:
    """Units of one kind in each layer: numbers before and after and, if known, the cost of the removed units."""

    layers: list[int]
    before: list[int]
    after: list[int]
    costs: list[float | None]


def shape_chart(report: Report, *, title: str) -> str:
    """Draw a panel of bars for each kind of units and, if rows have a `cost`, a panel of costs, as SVG.

    At least one row of the report must count units: the units of a layer, or a
    removed layer. Costs are in nats per token. Removed layers are marked in every panel.
    """
    kinds: dict[str, _KeptUnits] = {}
    for row in unit_rows(report.layers):
        kept = kinds.setdefault(row["kind"], _KeptUnits([], [], [], []))
        kept.layers.append(row["layer"])
        kept.before.append(row["before"])
        kept.after.append(row["after"])
        kept.costs.append(row.get("cost"))
    removed = kinds.pop(LAYER, _KeptUnits([], [], [], [])).layers
    costs = {
        kind: [pair for pair in zip(each.layers, each.costs, strict=True) if pair[1] is not None]
        for kind, each in kinds.items()
    }
    has_costs = any(costs.values())
    added = report.panels
    panels = max(1, len(kinds) + has_costs + len(added))
    with open_figure((8.0, 0.8 + 1.5 * panels)) as figure:
        axes = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
        for number, (each, (kind, kept)) in enumerate(zip(axes, kinds.items(), strict=False)):
            each.bar(kept.layers, kept.before, color=GRID, width=0.8)
            each.bar(kept.layers, kept.after, color=COLOURS[number], width=0.8)
            dress(each, "", "", f"{kind} kept")
        for each, panel in zip(axes[len(kinds) :], added, strict=False):
            _draw_shares(each, panel)
        if has_costs:
            for number, (kind, pairs) in enumerate(costs.items()):
                axes[-1].plot(*zip(*pairs, strict=True), color=COLOURS[number], marker="o", markersize=3, label=kind)
            dress(axes[-1], "", "", "cost, nats a token")
        for each in axes:
            for layer in removed:
                each.axvspan(
                    layer - 0.4, layer + 0.4, facecolor="white", edgecolor=COLOURS[1], hatch="///", linewidth=0
                )
        axes[0].set_title(f"{title}{_removed_layers_text(removed)}", loc="left")
        axes[-1].set_xlabel("layer")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return as_svg(figure, title)


def _draw_shares(axes: Axes, panel: SharePanel) -> None:
    for each in panel.series:
        marker, colour = _STYLES[each.of]
        axes.plot(
            [x for x, _ in each.points],
            [y for _, y in each.points],
            marker,
            color=colour,
            markersize=3,
            label=each.label,
        )
    dress(axes, "", "", panel.label)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)


def _removed_layers_text(removed: Sequence[int]) -> str:
    return f"; hatched: {len(removed)} {'layer' if len(removed) == 1 else 'layers'} removed" if removed else ""
