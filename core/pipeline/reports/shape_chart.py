"""Picture of a model that was made smaller: what each layer keeps, which layers are gone, and what each cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from core.pipeline.reports.drawing import COLOURS, GRID, as_svg, dress, open_figure
from core.pipeline.reports.report import ReportedExperts

_LAYER = "layer"
_BEFORE = "#767676"


@dataclass(frozen=True)
class _Kept:
    """Units of a kind in each layer: numbers before and after, and, where it is known, the cost of those removed."""

    layers: list[int]
    before: list[int]
    after: list[int]
    costs: list[float | None]


def shape_chart(rows: Sequence[Mapping[str, Any]], *, title: str, experts: Sequence[ReportedExperts] = ()) -> str:
    """Draw a panel of bars for each kind of units, and one of costs where a row has its `cost`, as SVG.

    Of `experts` whose routing is known there is a panel of the share of tokens that each has, before and after.

    `rows` are those of a report that count units, at least one: each of a decoder layer's heads or channels, or of a
    layer that is gone. Costs are in nats a token; layers that are gone are marked in every panel.
    """
    kinds: dict[str, _Kept] = {}
    for row in rows:
        kept = kinds.setdefault(row["kind"], _Kept([], [], [], []))
        kept.layers.append(row["layer"])
        kept.before.append(row["before"])
        kept.after.append(row["after"])
        kept.costs.append(row.get("cost"))
    removed = kinds.pop(_LAYER, _Kept([], [], [], [])).layers
    costs = {
        kind: [pair for pair in zip(each.layers, each.costs, strict=True) if pair[1] is not None]
        for kind, each in kinds.items()
    }
    has_costs = any(costs.values())
    routed = [row for row in experts if row.routing is not None]
    panels = max(1, len(kinds) + has_costs + bool(routed))
    with open_figure((8.0, 0.8 + 1.5 * panels)) as figure:
        axes = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
        for number, (each, (kind, kept)) in enumerate(zip(axes, kinds.items(), strict=False)):
            each.bar(kept.layers, kept.before, color=GRID, width=0.8)
            each.bar(kept.layers, kept.after, color=COLOURS[number], width=0.8)
            dress(each, "", "", f"{kind} kept")
        if routed:
            _draw_routing(axes[len(kinds)], routed)
        if has_costs:
            for number, (kind, pairs) in enumerate(costs.items()):
                axes[-1].plot(*zip(*pairs, strict=True), color=COLOURS[number], marker="o", markersize=3, label=kind)
            dress(axes[-1], "", "", "cost, nats a token")
        for each in axes:
            for layer in removed:
                each.axvspan(
                    layer - 0.4, layer + 0.4, facecolor="white", edgecolor=COLOURS[1], hatch="///", linewidth=0
                )
        axes[0].set_title(f"{title}{_marked(removed)}", loc="left")
        axes[-1].set_xlabel("layer")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return as_svg(figure, title)


def _draw_routing(axes: Axes, rows: Sequence[ReportedExperts]) -> None:
    """Draw the share of a layer's tokens that each expert has: on the left before, on the right after."""
    stayed: list[tuple[float, float]] = []
    went: list[tuple[float, float]] = []
    left: list[tuple[float, float]] = []
    for row in rows:
        assert row.routing is not None
        for expert, share in enumerate(_shares(row.routing.tokens)):
            (stayed if expert in row.kept else went).append((row.layer - 0.2, share))
        left += [(row.layer + 0.2, share) for share in _shares(row.routing.tokens_left)]
    for points, marker, colour, label in (
        (stayed, "o", _BEFORE, "before, stays"),
        (went, "x", COLOURS[1], "before, goes"),
        (left, "o", COLOURS[0], "after"),
    ):
        axes.plot([x for x, _ in points], [y for _, y in points], marker, color=colour, markersize=3, label=label)
    dress(axes, "", "", "tokens of an expert")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)


def _shares(tokens: Sequence[int]) -> list[float]:
    return [each / max(sum(tokens), 1) for each in tokens]


def _marked(removed: Sequence[int]) -> str:
    return f"; hatched: {len(removed)} {'layer' if len(removed) == 1 else 'layers'} removed" if removed else ""
