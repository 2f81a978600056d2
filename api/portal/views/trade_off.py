"""Trade-off of quality and cost in pages: in words, as a plot with links to the jobs, as PNG and as CSV."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import JsonValue
from starlette.responses import Response

from api.portal.formatting import count, number, size
from api.portal.views.files import chart, csv_file
from core.service.jobs.trade_off import TradeOff, TradeOffPoint, is_loss
from secateur_wire.sweeps import Cost

COSTS: Final[dict[Cost, str]] = {
    "bytes": "bytes of weights, as they are stored",
    "latency": "latency of a forward, ms",
    "parameters": "parameters that are not zero",
}
_LOG_FROM = 20
"""Ratio of the largest to the smallest perplexity from which the axis is logarithmic."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 380, 78, 24, 18, 52
_MOST_TICKS = 6
_MARGIN = 0.08
"""Free share of the axis at both of its ends."""


@dataclass(frozen=True)
class AxisTick:
    """Tick of an axis, in pixels of the drawing, with its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    """Model in the plot, in pixels of the drawing, with the ends of its noise where it is known."""

    number: int
    point: TradeOffPoint
    x: float
    y: float
    x_ends: tuple[float, float] | None
    y_ends: tuple[float, float] | None
    words: str


@dataclass(frozen=True)
class ParetoPlot:
    """Drawing of a trade-off: its axes, its models, and the line of the Pareto front."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: list[AxisTick]
    y_ticks: list[AxisTick]
    x_label: str
    y_label: str
    front: str
    dots: list[Dot]


def quality_in_words(quality: str) -> str:
    """Return a quality in words: `perplexity:articles` as "perplexity on articles"."""
    kind, _, name = quality.partition(":")
    kind = kind.replace("_", " ")
    return f"{kind}, mean of the tasks" if name == "task_mean" else f"{kind} on {name}"


def pareto_plot(trade_off: TradeOff) -> ParetoPlot | None:
    """Return the layout of the trade-off; None with fewer than two points."""
    points = trade_off.points
    if len(points) < 2:
        return None
    words = _labels(trade_off)
    x_axis = _Axis([(point.cost, point.cost_noise or 0.0) for point in points], _LEFT, _WIDTH - _RIGHT, is_log=False)
    y_axis = _Axis(
        [(point.quality, point.quality_noise or 0.0) for point in points], _HEIGHT - _BOTTOM, _TOP, is_log=words.is_log
    )
    shown_cost, shown_quality = _cost_format(trade_off.cost), number
    dots = []
    for place, point in enumerate(points, 1):
        costs, quality = shown_cost(point.cost), shown_quality(point.quality, 4)
        standing = "on the Pareto front" if point.beaten_by is None else f"beaten by {points[point.beaten_by].label}"
        dots.append(
            Dot(
                number=place,
                point=point,
                x=x_axis.at(point.cost),
                y=y_axis.at(point.quality),
                x_ends=x_axis.ends(point.cost, point.cost_noise),
                y_ends=y_axis.ends(point.quality, point.quality_noise),
                words=f"{point.label}: {words.quality} {quality}, {costs} {words.cost_unit}, {standing}",
            )
        )
    front = sorted((dot.x, dot.y) for dot in dots if dot.point.beaten_by is None)
    return ParetoPlot(
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        top=_TOP,
        bottom=_HEIGHT - _BOTTOM,
        x_ticks=[AxisTick(x_axis.at(value), shown_cost(value)) for value in x_axis.ticks],
        y_ticks=[AxisTick(y_axis.at(value), number(value)) for value in y_axis.ticks],
        x_label=words.x,
        y_label=words.y,
        front=" ".join(f"{x:.1f},{y:.1f}" for x, y in front),
        dots=dots,
    )


def draw_trade_off(trade_off: TradeOff) -> bytes:
    """Draw the trade-off as a PNG."""
    from core.pipeline.reports.charts import Spot, trade_off_chart  # It is slow to load, and only charts need it.

    spots = [
        Spot(
            each.label,
            each.cost,
            each.quality,
            on_front=each.beaten_by is None,
            is_reference=each.job is None,
            x_noise=each.cost_noise or 0.0,
            y_noise=each.quality_noise or 0.0,
        )
        for each in trade_off.points
    ]
    words = _labels(trade_off)
    return trade_off_chart(spots, title=words.title, x_label=words.x, y_label=words.y, y_is_log=words.is_log)


def trade_off_rows(trade_off: TradeOff) -> list[list[JsonValue]]:
    """Return the trade-off as rows of a table; the first row has the column names."""
    points = trade_off.points
    rows: list[list[JsonValue]] = [
        ["model", "job", trade_off.quality, "quality noise", trade_off.cost, "cost noise", "beaten by"]
    ]
    for point in points:
        beaten_by = None if point.beaten_by is None else points[point.beaten_by].label
        figures = (point.quality, point.quality_noise, point.cost, point.cost_noise)
        rows.append([point.label, point.job, *figures, beaten_by])
    return rows


def trade_off_answer(trade_off: TradeOff, form: Literal["png", "csv"], if_none_match: str | None) -> Response:
    """Answer with the trade-off as a file of that form."""
    if form == "csv":
        return csv_file("trade-off.csv", trade_off_rows(trade_off))
    return chart(trade_off.model_dump_json(), if_none_match, lambda: draw_trade_off(trade_off), media_type="image/png")


@dataclass(frozen=True)
class _Labels:
    title: str
    quality: str
    cost_unit: str
    x: str
    y: str
    is_log: bool


def _labels(trade_off: TradeOff) -> _Labels:
    qualities = [each.quality for each in trade_off.points]
    words = quality_in_words(trade_off.quality) if trade_off.quality else "quality"
    is_log = words.startswith("perplexity") and bool(qualities) and max(qualities) > _LOG_FROM * min(qualities)
    better = "lower is better" if is_loss(trade_off.quality or "") else "higher is better"
    cost = COSTS[trade_off.cost]
    return _Labels(
        title=f"{words[0].upper()}{words[1:]} against {cost}",
        quality=words,
        cost_unit={"parameters": "parameters", "bytes": "of weights", "latency": "a forward"}[trade_off.cost],
        x=cost,
        y=f"{words} ({better})",
        is_log=is_log,
    )


def _cost_format(cost: Cost) -> Callable[[float], str]:
    formats: dict[Cost, Callable[[float], str]] = {
        "parameters": count,
        "bytes": size,
        "latency": lambda value: f"{number(value)} ms",
    }
    return formats[cost]


class _Axis:
    """Axis between two pixels that covers all values with their noise."""

    def __init__(self, values: Sequence[tuple[float, float]], start: float, end: float, *, is_log: bool) -> None:
        self._start, self._end = start, end
        self._is_log = is_log
        low = self._scaled(min(value if is_log else value - noise for value, noise in values))
        high = self._scaled(max(value + noise for value, noise in values))
        extent = high - low or abs(high) * 0.1 or 1.0
        self._low, self._high = low - _MARGIN * extent, high + _MARGIN * extent

    def at(self, value: float) -> float:
        """Return the pixel of a value, limited to the axis."""
        share = (self._scaled(value) - self._low) / (self._high - self._low)
        return round(self._start + min(max(share, 0.0), 1.0) * (self._end - self._start), 1)

    def ends(self, value: float, noise: float | None) -> tuple[float, float] | None:
        return None if noise is None else (self.at(value - noise), self.at(value + noise))

    @property
    def ticks(self) -> list[float]:
        """Return round values along the axis."""
        if self._is_log:
            first, last = math.floor(self._low), math.ceil(self._high)
            candidates = [base * 10.0**power for power in range(first, last + 1) for base in (1, 2, 5)]
            inside = [value for value in candidates if self._low <= math.log10(value) <= self._high]
            return inside[:: -(-len(inside) // _MOST_TICKS)]
        step = _round_step((self._high - self._low) / _MOST_TICKS)
        first = math.ceil(self._low / step)
        return [place * step for place in range(first, math.floor(self._high / step) + 1)]

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self._is_log else value


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is not smaller than the step."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(base * power for base in (1, 2, 5, 10) if base * power >= least * (1 - 1e-9))
