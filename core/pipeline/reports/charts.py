"""Charts of results as SVG and PNG: equal figures always give equal bytes.

Text stays text, in the reader's own sans-serif font. The colours are the palette of Okabe and Ito, which people with
any kind of colour vision can tell apart; markers differ too.
"""

import io
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogFormatter, MaxNLocator, PercentFormatter

from core.engine.cuts import LAYER, unit_rows
from core.engine.options.sensitivity import Sensitivity, SensitivityCurve
from core.engine.removals.experts import SharePanel
from core.pipeline.reports.report import Report
from secateur_wire.reports import VocabularyReport

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GRID = "#E6E6E6"
_STYLE: Any = {  # the type of its keys differs between matplotlib's versions
    "svg.hashsalt": "secateur",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
_DRAWING = threading.Lock()
"""Lock that allows one chart at a time, because matplotlib's settings belong to the entire process."""


@contextmanager
def open_figure(size: tuple[float, float]) -> Iterator[Figure]:
    """Open a figure of this size in inches; it has to be drawn before the context ends."""
    with _DRAWING, matplotlib.rc_context(_STYLE):
        yield Figure(figsize=size, layout="constrained")


def dress(axes: Axes, title: str, x_label: str, y_label: str, *, x_is_share: bool = False) -> None:
    """Give axes their title, labels and grid."""
    axes.set_title(title, loc="left")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    if x_is_share:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def as_svg(figure: Figure, title: str) -> str:
    """Return the figure as SVG without a date, so that equal figures give equal bytes."""
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    return target.getvalue()


def as_png(figure: Figure) -> bytes:
    """Return the figure as PNG in a resolution for slides."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=200, metadata={"Software": None})
    return target.getvalue()


_GREY = "#C8C8C8"
_NAMED = 3
"""Number of layers named in the chart of curves: this many that lose most, and this many that lose least."""
_ROW_LABELS = 40
"""Largest number of rows in the heat map for which each row is named."""
_LINES_HEIGHT = 4.0
"""Height in inches of the chart of curves when the heat map beside it is much taller."""


@dataclass(frozen=True)
class Series:
    """One line of points (x, y)."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str) -> str:
    """Draw lines over one pair of axes, as SVG; y begins at zero, so that small differences look small."""
    with open_figure((8.4, 4.0)) as figure:
        axes = figure.add_subplot()
        for number, each in enumerate(series):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            axes.plot(each.x, each.y, color=colour, marker=marker, markersize=4, linewidth=1.5, label=each.label)
        dress(axes, title, x_label, y_label)
        if all(isinstance(x, int) for each in series for x in each.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        _draw_legend_outside(axes)
        return as_svg(figure, title)


@dataclass(frozen=True)
class Spot:
    """One model of a trade-off; `on_front` means that no other dominates it, `is_reference` marks a starting model.

    `x_noise` and `y_noise` are the uncertainties of the figures in both directions; 0 if unknown.
    """

    label: str
    x: float
    y: float
    on_front: bool
    is_reference: bool = False
    x_noise: float = 0.0
    y_noise: float = 0.0


def trade_off_chart(spots: Sequence[Spot], *, title: str, x_label: str, y_label: str, y_is_log: bool = False) -> bytes:
    """Draw models by cost and quality, as PNG; their numbers are those of the legend.

    Models on the Pareto front are filled and joined by a line, all others are empty markers. Squares are references.
    """
    with open_figure((8.4, 4.2 + 0.12 * max(0, len(spots) - 12))) as figure:
        axes = figure.add_subplot()
        front = sorted((spot.x, spot.y) for spot in spots if spot.on_front)
        axes.plot(*zip(*front, strict=True), color=COLOURS[0], linewidth=1.2, linestyle="--", zorder=1)
        for number, spot in enumerate(spots, 1):
            axes.errorbar(
                [spot.x],
                [spot.y],
                xerr=spot.x_noise or None,
                yerr=spot.y_noise or None,
                linestyle="none",
                marker="s" if spot.is_reference else "o",
                markersize=7,
                color=COLOURS[0] if spot.on_front else COLOURS[1],
                markerfacecolor=COLOURS[0] if spot.on_front else "white",
                label=f"{number}  {spot.label}",
            )
            axes.annotate(str(number), (spot.x, spot.y), xytext=(5, 5), textcoords="offset points", fontsize=8)
        dress(axes, title, x_label, y_label)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.margins(0.12)
        if y_is_log:
            _scale_y(axes)
        _draw_legend_outside(axes)
        return as_png(figure)


def layers_chart(sparsities: Sequence[Series], errors: Sequence[Series], *, title: str) -> str:
    """Draw the share of each layer that is zero or removed and, if known, reconstruction errors below it, as SVG.

    x is the layer's number in the model. Series of the same label share colour and marker. The legend has the means.
    """
    labels = [each.label for each in sparsities]
    mean_errors = {each.label: f", error {fmean(each.y):.1%}" for each in errors}
    with open_figure((8.0, 5.6 if errors else 3.2)) as figure:
        panels = figure.subplots(2 if errors else 1, 1, sharex=True, squeeze=False)[:, 0]
        rows = [(sparsities, "share zero or removed"), (errors, "relative error of the output")]
        for axes, (series, y_label) in zip(panels, rows, strict=False):
            for each in series:
                number = labels.index(each.label)
                axes.plot(
                    each.x,
                    each.y,
                    color=COLOURS[number % len(COLOURS)],
                    marker=MARKERS[number % len(MARKERS)],
                    markersize=4,
                    linewidth=1.2,
                    label=f"{each.label}: mean {fmean(each.y):.0%}{mean_errors.get(each.label, '')}",
                )
            dress(axes, "", "", y_label)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
            axes.set_ylim(bottom=0)
        panels[0].set_title(title, loc="left")
        panels[-1].set_xlabel("layer")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(labels) > 1:
            panels[0].legend(frameon=False, ncols=3, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.05))
        return as_svg(figure, title)


def sensitivity_chart(sensitivity: Sensitivity) -> str:
    """Draw the loss from pruning each layer at each rate, as a heat map and as curves, as SVG.

    The heat map on the left has the layers in the model's order. The curves on the right name the layers that lose most
    and least at the highest rate. Both scales are logarithmic down to a thousandth of the largest increase; smaller
    increases are shown as zero.
    """
    rows = len(sensitivity.curves)
    height = min(max(_LINES_HEIGHT, 1.2 + 0.17 * rows), 16.0)
    what = f"loss increase, nats {sensitivity.model_task.example}"
    increases = {curve.name: sensitivity.increases(curve) for curve in sensitivity.curves}
    largest = max((each for curve in increases.values() for each in curve), default=0.0)
    largest = largest if largest > 0 else 1e-3
    smallest = largest / 1000
    row = "layer" if sensitivity.scope == "layer" else "linear layer"
    title = f"Sensitivity to {sensitivity.method} ({sensitivity.pattern}): each {row} pruned alone"
    with open_figure((10.0, height)) as figure:
        grid = figure.add_gridspec(
            2, 2, width_ratios=(1.15, 1.0), height_ratios=(_LINES_HEIGHT, max(height - _LINES_HEIGHT, 0.01))
        )
        heat = figure.add_subplot(grid[:, 0])
        lines = figure.add_subplot(grid[:, 1] if height < 2 * _LINES_HEIGHT else grid[0, 1])
        shown = [[max(each, smallest) for each in increases[curve.name]] for curve in sensitivity.curves]
        picture = heat.pcolormesh(
            shown, cmap="cividis", norm=LogNorm(smallest, largest), edgecolors="white", lw=0.3 if rows <= 60 else 0
        )
        heat.invert_yaxis()
        every = math.ceil(rows / _ROW_LABELS)
        heat.set_yticks(
            [place + 0.5 for place in range(0, rows, every)],
            [_short(sensitivity, curve) for curve in sensitivity.curves[::every]],
            fontsize=8 if rows <= 20 else 7,
        )
        heat.set_xticks(
            [place + 0.5 for place in range(len(sensitivity.rates))], [f"{rate:.0%}" for rate in sensitivity.rates]
        )
        heat.tick_params(length=0)
        heat.spines[:].set_visible(False)
        heat.set_title(what, loc="left")
        heat.set_xlabel("weights pruned")
        figure.colorbar(picture, ax=heat, pad=0.02, aspect=8 * height).outline.set_visible(False)
        _draw_curves(lines, sensitivity, increases)
        dress(lines, "the most and the least sensitive", "weights pruned", what, x_is_share=True)
        lines.set_yscale("symlog", linthresh=smallest, linscale=0.3)
        lines.set_ylim(-smallest / 2, largest * 1.5)
        lines.legend(frameon=False, fontsize=8)
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        return as_svg(figure, title)


def _draw_curves(axes: Axes, sensitivity: Sensitivity, increases: dict[str, list[float]]) -> None:
    order = sorted(sensitivity.curves, key=lambda curve: -increases[curve.name][-1])
    named = order if len(order) <= 2 * _NAMED else [*order[:_NAMED], *order[-_NAMED:]]
    for curve in order:
        if curve not in named:
            axes.plot([0, *sensitivity.rates], [0, *increases[curve.name]], color=_GREY, linewidth=0.8, zorder=1)
    for number, curve in enumerate(named):
        axes.plot(
            [0, *sensitivity.rates],
            [0, *increases[curve.name]],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            linewidth=1.5,
            zorder=2,
            label=_short(sensitivity, curve),
        )


def _short(sensitivity: Sensitivity, curve: SensitivityCurve) -> str:
    """Return a short row label: a decoder layer's number, or the module's name without the common prefix."""
    if sensitivity.model_task.has_blocks and sensitivity.scope == "layer":
        return f"layer {curve.layer}"
    parts = curve.name.split(".")
    common = 0
    while all(
        len(names) > common + 1 and names[common] == parts[common]
        for names in (each.name.split(".") for each in sensitivity.curves)
    ):
        common += 1
    return ".".join(parts[common:])


def _draw_legend_outside(axes: Axes) -> None:
    """Draw a legend outside the axes, so that it hides nothing."""
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _scale_y(axes: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))


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

    The kind of removal may add panels. At least one row of the report must count units: the units of a layer, or a
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


def vocabulary_chart(vocabulary: VocabularyReport, *, title: str) -> str:
    """Draw the share of the texts' tokens over the number of kept tokens, with the chosen number, as SVG."""
    with open_figure((8.0, 3.0)) as figure:
        axes = figure.subplots()
        points = vocabulary.coverage
        axes.plot([each.tokens for each in points], [each.share for each in points], color=COLOURS[0])
        axes.plot([vocabulary.kept], [vocabulary.covered], "o", color=COLOURS[1])
        axes.annotate(
            f"{vocabulary.kept:,} kept: {vocabulary.covered:.2%}",
            (vocabulary.kept, vocabulary.covered),
            textcoords="offset points",
            xytext=(8, -14),
        )
        axes.axvline(vocabulary.used, color=COLOURS[2], linewidth=0.8, linestyle="--", label="tokens of the texts")
        dress(axes, title, "tokens in the vocabulary", "share of the texts' tokens")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
        axes.legend(frameon=False, loc="lower right", fontsize=8)
        return as_svg(figure, title)
