"""Sentences of a comparison: which result is best in what, and in which fields the requests differ."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import hypot

from pydantic import JsonValue

from api.portal.formatting import number, percent, size
from api.portal.views.picture import MeasuredFigure, Model, show_quality
from api.portal.views.summary import NO_DIFFERENCE
from api.portal.views.trade_off import quality_in_words
from core.service.jobs.comparison import ComparedField
from core.service.jobs.noise import is_same
from secateur_wire.job_fields import LEADING

_SAME_SIZE = 0.01
"""Relative difference of bytes that counts as none: file headers, or a tied head that is written twice."""
_NAMED = 4
"""Maximum number of fields, or of values of one field, in a sentence; the table has all."""
_LONGEST = 40
"""Maximum number of characters of a value in a sentence."""


@dataclass(frozen=True)
class _Measure:
    """A figure of the models: its name, words for the best, when two are alike, and how one is shown."""

    title: str
    best: str
    figure_of: Callable[[Model], MeasuredFigure | None]
    is_alike: Callable[[MeasuredFigure, MeasuredFigure], bool]
    shown: Callable[[float], str]
    is_higher_better: bool = False


def findings(models: Sequence[Model], quality: str | None) -> list[str]:
    """Return a sentence for each of size, speed and quality; figures that differ by no more than their noise are alike.

    `models` are those of `comparison_models`.
    """
    name, is_higher = quality_in_words(quality or ""), (quality or "").startswith("accuracy")
    measures = (
        _Measure("Size", "Smallest", lambda each: each.size, _is_same_size, size),
        _Measure("Speed", "Fastest", lambda each: each.time, _is_same_time, lambda ms: f"{number(ms)} ms a forward"),
        _Measure(
            "Quality",
            "Best quality",
            lambda each: each.quality,
            _is_same_quality,
            lambda value: f"{name} {show_quality(quality, value)}",
            is_higher,
        ),
    )
    return [_finding(models, each) for each in measures]


def _finding(models: Sequence[Model], measure: _Measure) -> str:
    figure_of, shown = measure.figure_of, measure.shown
    known = [(each.label, figure) for each in models if not each.is_dense and (figure := figure_of(each)) is not None]
    if not known:
        return f"{measure.title}: not measured."
    label, best = (max if measure.is_higher_better else min)(known, key=lambda each: each[1].value)
    if len(known) == 1:
        return f"{measure.title}: measured for {label} alone, {shown(best.value)}."
    alike = [other for other, figure in known if other != label and measure.is_alike(best, figure)]
    if len(alike) == len(known) - 1:
        return f"{measure.title}: {NO_DIFFERENCE} between the results ({shown(best.value)})."
    sentence = f"{measure.best}: {label}, {shown(best.value)}"
    if alike:
        sentence += f"; {NO_DIFFERENCE} from {_listed(alike)}"
    dense = [figure for each in models if each.is_dense and (figure := figure_of(each)) is not None]
    if len(dense) == 1 and measure.is_alike(best, dense[0]):
        sentence += f"; {NO_DIFFERENCE} from the dense model"
    return f"{sentence}."


def differences(fields: Sequence[ComparedField]) -> str:
    """Return in one sentence which fields of the requests differ, with their values."""
    phrases = [f"{_name(field.name)} ({_values(field)})" for field in _leading(fields)]
    if not phrases:
        return "The requests are the same."
    return f"The jobs differ in {_listed(phrases)}."


def _leading(fields: Sequence[ComparedField]) -> Iterator[ComparedField]:
    """Yield the fields that differ, without those that only follow from another: a method's own parameters, for one."""
    differing = {each.name: each for each in fields if each.kind == "request" and each.differs}
    for name, field in differing.items():
        part = name.partition(".")[0]
        leading = differing.get({"parameters": "method", **LEADING}.get(part, ""))
        follows = leading is not None and leading.name != name and (part == "parameters" or None in leading.values)
        if not follows and not (name == "model_revision" and "model" in differing):
            yield field


def _name(path: str) -> str:
    return path.removeprefix("parameters.").replace(".", " ").replace("_", " ")


def _values(field: ComparedField) -> str:
    values = list(dict.fromkeys(_value(field.name, each) for each in field.values))
    more = len(values) - _NAMED
    return "; ".join(values[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _value(name: str, value: JsonValue) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return percent(value) if name == "sparsity" else number(value)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _listed(phrases: Sequence[str]) -> str:
    """Return phrases as a list in words, with at most `_NAMED` of them."""
    more = len(phrases) - _NAMED
    shown = [*phrases[:_NAMED], f"{more} more"] if more > 0 else list(phrases)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _is_same_size(one: MeasuredFigure, other: MeasuredFigure) -> bool:
    return is_same([one.value, other.value], _SAME_SIZE)


def _is_same_time(one: MeasuredFigure, other: MeasuredFigure) -> bool:
    return abs(one.value - other.value) <= max(one.noise, other.noise)


def _is_same_quality(one: MeasuredFigure, other: MeasuredFigure) -> bool:
    return is_same([one.value, other.value]) or abs(one.value - other.value) <= hypot(one.noise, other.noise)
