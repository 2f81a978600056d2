"""Outcome of a plan as a page shows it: figures with their ranges, and a chart over the amounts."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from api.portal.formatting import number, percent, size
from core.pipeline.reports.verdict import PERPLEXITY_BANDS, band_of
from secateur_wire.jobs import Band
from secateur_wire.plans import FigureName, Plan, PlanFigure, PlanPoint
from secateur_wire.progress import between, roughly

SOURCES: Final[dict[str, str]] = {
    "jobs": "your team's own jobs",
    "measurements": "measurements of this release",
    "account": "what is counted or computed",
}
LIMITS: Final = tuple(zip(PERPLEXITY_BANDS, get_args(Band)[1:], strict=True))
"""Perplexity ratios at which a model gets the next verbal rating."""
_UNKNOWN: Final = "?"
_TICK: Final = 8.5
_PHONE_TICK: Final = 35.0
"""Smallest distance of two amounts on the axis, in per cent of its length, on a desktop and on a phone."""
_WIDTH: Final = 1000
_HEIGHT: Final = 100
"""Units of the chart's drawing, which the page stretches over the axis."""
_NAME_HEIGHT: Final = 14
"""Height of a label, in per cent of the chart's height."""
_LEAST_TOP: Final = 1.5
"""Smallest perplexity ratio at the top of the chart, so that a tiny loss does not look large."""

_MOST_TOP: Final = 8.0
"""Largest perplexity ratio at the top of the chart; worse models are all useless."""


@dataclass(frozen=True)
class OutcomeFigure:
    """Figure of the chosen amount: the estimate, its range, and its evidence."""

    label: str
    value: str
    range: str
    source: str
    basis: str


@dataclass(frozen=True)
class Tick:
    """Amount on the axis, at `x` per cent of its length, with its known figures by row.

    Only amounts with `is_shown` have room, and on a phone only those without `is_wide`.
    """

    x: float
    amount: str
    cells: tuple[str, ...]
    is_shown: bool
    is_wide: bool


@dataclass(frozen=True)
class Limit:
    """Line of the chart at a perplexity ratio, at `y` per cent from the top."""

    y: float
    text: str


@dataclass(frozen=True)
class OutcomeAxis:
    """Axis of amounts: its ends, its ticks, and perplexity along it as a band and a line (SVG points)."""

    low: float
    high: float
    rows: tuple[str, ...]
    ticks: tuple[Tick, ...]
    band: str
    line: str
    limits: tuple[Limit, ...]
    marker: float

    @property
    def shown_ticks(self) -> list[Tick]:
        return [each for each in self.ticks if each.is_shown]


_NAMES: Final[dict[FigureName, str]] = {
    "answer_kl": "KL of answers",
    "perplexity_ratio": "Perplexity",
    "bits_per_byte_ratio": "Bits per byte",
    "bytes_ratio": "Size",
    "prefill_ratio": "Reading speed",
    "decode_ratio": "Writing speed",
    "seconds": "The job takes",
}
_ROWS: Final[dict[FigureName, str]] = {
    "answer_kl": "KL of answers",
    "perplexity_ratio": "Perplexity",
    "bits_per_byte_ratio": "Bits per byte",
    "bytes_ratio": "Size",
    "prefill_ratio": "Time to read",
    "decode_ratio": "Time to write",
    "seconds": "Job takes",
}


def outcome_figures(plan: Plan, dense_bytes: int | None) -> list[OutcomeFigure]:
    """Return the figures of the chosen amount, the most important first."""
    return [
        OutcomeFigure(
            _NAMES[name],
            _value(name, figure.estimate, dense_bytes),
            _range(name, figure, dense_bytes),
            SOURCES[figure.source],
            figure.basis,
        )
        for name in _NAMES
        if (figure := plan.figures.get(name)) is not None
    ]


def _value(name: FigureName, estimate: float, dense_bytes: int | None) -> str:
    match name:
        case "seconds":
            return roughly(estimate)
        case "bytes_ratio":
            return percent(estimate) if dense_bytes is None else size(estimate * dense_bytes)
        case "answer_kl":
            return number(estimate)
        case "perplexity_ratio" | "bits_per_byte_ratio":
            return f"× {number(estimate)}"
        case "prefill_ratio" | "decode_ratio":
            return _speed(estimate)


def _speed(ratio: float) -> str:
    return f"× {_inverse(ratio)}" if ratio > 0 else "–"


def _inverse(ratio: float) -> str:
    return number(1 / ratio, 2) if ratio > 0 else "–"


def _range(name: FigureName, figure: PlanFigure, dense_bytes: int | None) -> str:
    match name:
        case "seconds":
            return between(figure.low, figure.high)
        case "bytes_ratio":
            dense = "" if dense_bytes is None else f" of {size(dense_bytes)}"
            share = percent(figure.estimate)
            if percent(figure.low) != percent(figure.high):
                share = f"{number(figure.low * 100, 2)} to {percent(figure.high)}"
            return f"{share}{dense}"
        case "answer_kl" | "perplexity_ratio" | "bits_per_byte_ratio":
            return _ends(number(figure.low), number(figure.high))
        case "prefill_ratio" | "decode_ratio":
            return _ends(_inverse(figure.high), _inverse(figure.low))


def _ends(low: str, high: str) -> str:
    """Return a range in words: a single figure where both ends have the same text."""
    return low if low == high else f"{low} to {high}"


def expected_quality(plan: Plan) -> str | None:
    """Return in words how the model should compare with the dense one; None where that is unknown."""
    figure = plan.figures.get("perplexity_ratio")
    if figure is None:
        return plan.answers
    best, middle, worst = (band_of(each) for each in (figure.low, figure.estimate, figure.high))
    words = middle if best == worst else f"{best} to {worst}"
    return words if plan.answers is None else f"{plan.answers}; by perplexity {words}"


def estimates_from(plan: Plan) -> str:
    """Return a sentence that says that the figures are estimates, their evidence, and the unknown figures."""
    by_source = {each.source: each.basis for each in plan.figures.values()}
    sentence = "Estimates, not promises"
    if by_source:
        sentence += ", by " + " and ".join(SOURCES[source] for source in SOURCES if source in by_source)
    if not plan.unknown:
        return f"{sentence}."
    unknown = "; ".join(_in_words(each) for each in plan.unknown)
    return f"{sentence}. Not known: {unknown}."


def _in_words(text: str) -> str:
    """Return a sentence of the planner with the page's names of figures."""
    for name, shown in _NAMES.items():
        text = text.replace(name, shown.lower())
    return text.rstrip(".")


def outcome_axis(plan: Plan) -> OutcomeAxis | None:
    """Return the axis of amounts; None without a choice of amounts."""
    points = sorted(plan.points, key=lambda each: each.amount)
    if plan.amount is None or not points:
        return None
    low = min(points[0].amount, plan.amount)
    high = max(points[-1].amount, plan.amount)
    if low == high:
        return None

    def across(amount: float) -> float:
        return round((amount - low) / (high - low) * 100, 2)

    rows = [name for name in _ROWS if _is_informative([_cell(each, name) for each in points])]
    shown, narrow = (_with_spacing([across(each.amount) for each in points], least) for least in (_TICK, _PHONE_TICK))
    ticks = tuple(
        Tick(
            across(each.amount),
            percent(each.amount),
            tuple(_cell(each, name) for name in rows),
            is_shown=across(each.amount) in shown,
            is_wide=across(each.amount) not in narrow,
        )
        for each in points
    )
    band, line, limits = _quality(points, across)
    return OutcomeAxis(low, high, tuple(_ROWS[name] for name in rows), ticks, band, line, limits, across(plan.amount))


def _is_informative(cells: Sequence[str]) -> bool:
    """Return whether a row has figures for most amounts, and not the same figure for all."""
    known = [each for each in cells if each != _UNKNOWN]
    return len(known) * 2 > len(cells) and len(set(known)) > 1


def _with_spacing(places: Sequence[float], least: float) -> set[float]:
    """Return the places that have room: both ends, and between them places with enough distance from the one before."""
    kept = [places[0]]
    for each in places[1:-1]:
        if each >= kept[-1] + least and each <= places[-1] - least:
            kept.append(each)
    return {*kept, places[-1]}


def _cell(point: PlanPoint, name: FigureName) -> str:
    figure = point.figures.get(name)
    if figure is None:
        return _UNKNOWN
    match name:
        case "seconds":
            return roughly(figure.estimate)
        case "perplexity_ratio" | "bits_per_byte_ratio":
            return f"× {number(figure.estimate, 3 if figure.estimate < 10 else 2)}"
        case "answer_kl":
            return number(figure.estimate, 2)
        case _:
            return percent(figure.estimate)


def _quality(points: Sequence[PlanPoint], across: Callable[[float], float]) -> tuple[str, str, tuple[Limit, ...]]:
    """Return the band, the line and the limits of perplexity along the axis, on a logarithmic scale."""
    known = [(each.amount, figure) for each in points if (figure := each.figures.get("perplexity_ratio")) is not None]
    if not known:
        return "", "", ()
    top = math.log(min(_MOST_TOP, max(_LEAST_TOP, *(figure.high for _, figure in known))))
    bottom = min(0.0, *(math.log(figure.low) for _, figure in known))

    def down(ratio: float) -> float:
        return (top - math.log(ratio)) / (top - bottom) * _HEIGHT

    def place(amount: float, ratio: float) -> str:
        return f"{across(amount) / 100 * _WIDTH:.1f},{down(ratio):.1f}"

    upper = [place(amount, figure.high) for amount, figure in known]
    lower = [place(amount, figure.low) for amount, figure in reversed(known)]
    line = [place(amount, figure.estimate) for amount, figure in known]
    limits = [Limit(round(down(ratio), 1), text) for ratio, text in LIMITS if bottom < math.log(ratio) < top]
    return " ".join((*upper, *lower)), " ".join(line), tuple(_without_overlaps(limits))


def _without_overlaps(limits: Iterable[Limit]) -> Iterator[Limit]:
    """Yield the limits whose labels do not overlap."""
    free = float(_HEIGHT)
    for each in limits:
        if each.y <= free - _NAME_HEIGHT and each.y >= _NAME_HEIGHT:
            free = each.y
            yield each
