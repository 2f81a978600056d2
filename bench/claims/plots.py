"""The figures of a claim drawn as SVG: the mean over seeds, and from the least to the largest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.claims.claim import Panel, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE: Any = {"svg.hashsalt": "claims", "svg.fonttype": "none", "font.size": 8, "axes.grid": True, "grid.alpha": 0.3}
_MARKERS = "osv^D<>pP*"
_INCHES = (4.2, 3.1)


@dataclass(frozen=True)
class Series:
    """One line over all seeds: its places in order, and for each the values that the seeds gave."""

    name: str
    xs: Sequence[float | str]
    values: Sequence[Sequence[float]]

    @property
    def means(self) -> list[float]:
        """One for each place."""
        return [sum(each) / len(each) for each in self.values]


def series(runs: Sequence[Run], panel: str) -> list[Series]:
    """The lines of a panel, in the order they were measured in."""
    gathered: dict[str, dict[float | str, list[float]]] = {}
    for run in runs:
        for name, points in run.curves.get(panel, {}).items():
            for x, y in points:
                gathered.setdefault(name, {}).setdefault(x, []).append(y)
    return [Series(name, list(points), list(points.values())) for name, points in gathered.items()]


def draw(panels: Sequence[Panel], runs: Sequence[Run], file: Path) -> None:
    """Write all panels side by side; the same figures give the same bytes."""
    import matplotlib  # slow to import, and for this alone
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_INCHES[0] * len(panels), _INCHES[1]), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, panel, series(runs, panel.key))
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", metadata={"Date": None})


def _draw_panel(axes: "Axes", panel: Panel, lines: Sequence[Series]) -> None:
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    if panel.is_logarithmic:
        axes.set_yscale("log", nonpositive="mask")
    if any(isinstance(x, str) for line in lines for x in line.xs):
        _bars(axes, lines)
    else:
        for line, marker in zip(lines, _MARKERS, strict=False):
            xs = [float(x) for x in line.xs]
            axes.plot(xs, line.means, marker=marker, markersize=4, label=line.name)
            axes.fill_between(xs, *_extent(line.values), alpha=0.2)
    if lines:
        axes.legend(fontsize=7)


def _bars(axes: "Axes", lines: Sequence[Series]) -> None:
    """Groups of bars, one group for each name on the axis."""
    places: Mapping[float | str, int] = {
        x: place for place, x in enumerate(dict.fromkeys(x for line in lines for x in line.xs))
    }
    width = 0.8 / len(lines)
    for number, line in enumerate(lines):
        lowest, highest = _extent(line.values)
        whiskers = [  # a mean of equal figures may lie a rounding beyond them
            [max(0.0, mean - low) for mean, low in zip(line.means, lowest, strict=True)],
            [max(0.0, high - mean) for mean, high in zip(line.means, highest, strict=True)],
        ]
        middle = (number - (len(lines) - 1) / 2) * width
        axes.bar([places[x] + middle for x in line.xs], line.means, width, yerr=whiskers, capsize=2, label=line.name)
    axes.set_xticks(range(len(places)), [str(name) for name in places])


def _extent(values: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [min(each) for each in values], [max(each) for each in values]
