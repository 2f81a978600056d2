"""Picture that a result and a comparison begin with, and a comparison's sentences below it.

The picture has size, time and quality of the dense and the pruned models.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import hypot
from statistics import median
from typing import Final

from pydantic import JsonValue

from api.portal.formatting import number, percent, size
from api.portal.views.summary import NO_DIFFERENCE, SAME_SIZE, size_in_words, time_in_words
from api.portal.views.trade_off import quality_in_words
from core.service.jobs.comparison import ComparedField, Comparison
from core.service.jobs.noise import is_same
from core.service.jobs.schemas import Job
from core.service.jobs.trade_off import TASK_MEAN, Quality, measured_as, qualities_of, short_name
from secateur_wire.job_fields import LEADING
from secateur_wire.jobs import Verdict
from secateur_wire.metrics import NOT_WELL, Metrics, is_noisy, latency_noise

_LONGEST: Final = 4.0
"""Length of the longest bar in multiples of the shortest; longer bars are cut, so that the others can be read."""
_LOWER: Final = "shorter is better"
_HIGHER: Final = "longer is better"
_NAMED: Final = 4
"""Maximum number of fields, or of values of one field, in a sentence; the table has all."""
_LONGEST_VALUE: Final = 40
"""Maximum number of characters of a value in a sentence."""


@dataclass(frozen=True)
class MeasuredFigure:
    """Figure of a model; `noise` is its measurement error in both directions, `how` says how it was measured."""

    value: float
    noise: float = 0.0
    how: str = ""

    @property
    def is_noisy(self) -> bool:
        """Return whether the noise is so large that the figure does not count as measured."""
        return is_noisy(self.noise / self.value if self.value else None)


@dataclass(frozen=True)
class Model:
    """Model of the picture with its figures: bytes, milliseconds of a forward, and quality; None if not measured.

    `job` is the job that the label links to.
    """

    label: str
    is_dense: bool
    size: MeasuredFigure | None
    time: MeasuredFigure | None
    quality: MeasuredFigure | None
    job: str | None = None


@dataclass(frozen=True)
class Bar:
    """Bar of one model, in per cent of the panel's width; `noise` has its two ends. `is_cut`: it is longer than drawn.

    A model without the figure has a `length` of 0.
    """

    model: Model
    value: str
    length: float = 0.0
    noise: tuple[float, float] | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class Panel:
    """One figure of all models: the figure's name, its unit, its outcome in words, and a bar for each model."""

    title: str
    measure: str
    words: str
    bars: tuple[Bar, ...]


def result_panels(metrics: Metrics, verdict: Verdict | None, names: tuple[str, str]) -> list[Panel]:
    """Return the panels of one job; `names` are those of the model before and after it. Empty without figures."""
    qualities = qualities_of(metrics)
    decisive = None if verdict is None else f"{verdict.figure}:{verdict.on or TASK_MEAN}"
    quality = decisive if decisive in qualities else next(iter(qualities), None)
    models = [
        _model_of(metrics, quality, label, is_dense=is_dense)
        for label, is_dense in zip(names, (True, False), strict=True)
    ]
    words = (size_in_words(metrics), time_in_words(metrics), "" if verdict is None else verdict.words)
    return _panels(models, quality, words)


def comparison_models(comparison: Comparison) -> list[Model]:
    """Return each dense model once, then the jobs' models; quality is that of the comparison's trade-off.

    A dense model has the median of the times that its jobs measured alike; where they measured it in several ways, it
    is there once for each.
    """
    quality, jobs = comparison.trade_off.quality, comparison.jobs
    dense: list[Model] = []
    for name in dict.fromkeys(job.model for job in jobs):
        own = [(job, label) for job, label in zip(jobs, comparison.labels, strict=True) if job.model == name]
        models = [_model(job, quality, label, is_dense=True) for job, label in own]
        times, qualities = (
            list(dict.fromkeys(each.how for each in figures if each is not None))
            for figures in ([each.time for each in models], [each.quality for each in models])
        )
        if max(len(times), len(qualities)) <= 1:
            dense.append(_joined(f"{short_name(name)}, dense", models))
            continue
        ways = {(each.time and each.time.how, each.quality and each.quality.how): None for each in models}
        for way in ways:
            alike = [each for each in models if (each.time and each.time.how, each.quality and each.quality.how) == way]
            dense.append(_joined(f"{short_name(name)}, dense (of {alike[0].label})", alike))
    return dense + [
        _model(job, quality, label, is_dense=False) for job, label in zip(jobs, comparison.labels, strict=True)
    ]


def _joined(label: str, models: Sequence[Model]) -> Model:
    """Return a dense model with the figures that several jobs measured alike."""
    times = [each.time for each in models if each.time is not None]
    return Model(
        label,
        is_dense=True,
        size=next((each.size for each in models if each.size is not None), None),
        time=MeasuredFigure(median(each.value for each in times), how=times[0].how) if times else None,
        quality=next((each.quality for each in models if each.quality is not None), None),
    )


def comparison_panels(models: Sequence[Model], quality: str | None) -> list[Panel]:
    """Return the panels of several jobs. Empty without figures."""
    return _panels(models, quality, ("", "", ""))


def show_quality(quality: str | None, value: float, digits: int = 3) -> str:
    """Return a quality as text: accuracy as a percentage, perplexity as a number of this many significant digits."""
    return percent(value, 1) if (quality or "").startswith("accuracy") else number(value, digits)


def _model(job: Job, quality: str | None, label: str, *, is_dense: bool) -> Model:
    """Return a model of a comparison, whose figures say how they were measured."""
    model = _model_of(job.measured, quality, label, is_dense=is_dense)
    time, figure = model.time, model.quality
    return replace(
        model,
        time=time and replace(time, how=measured_as(job, "latency")),
        quality=figure and replace(figure, how=measured_as(job, quality or "")),
        job=None if is_dense else job.id,
    )


def _model_of(metrics: Metrics, quality: str | None, label: str, *, is_dense: bool) -> Model:
    sizes, latency, figures = metrics.bytes, metrics.latency, qualities_of(metrics).get(quality or "")
    stored = None if sizes is None else sizes.dense if is_dense else sizes.stored
    time = None if latency is None else latency.dense_ms if is_dense else latency.pruned_ms
    noise = 0.0 if is_dense or latency is None else latency_noise(latency.spread)
    return Model(
        label,
        is_dense,
        size=None if stored is None else MeasuredFigure(stored),
        time=None if time is None else MeasuredFigure(time, noise * time),
        quality=None if figures is None else _quality(figures, is_dense=is_dense),
    )


def _quality(figures: Quality, *, is_dense: bool) -> MeasuredFigure | None:
    value = figures.dense if is_dense else figures.pruned
    noise = getattr(figures, "dense_stderr" if is_dense else "pruned_stderr", None)
    return None if value is None else MeasuredFigure(value, noise or 0.0)


def _panels(models: Sequence[Model], quality: str | None, words: tuple[str, str, str]) -> list[Panel]:
    if not any(each.size or each.time or each.quality for each in models):
        return []
    is_higher = (quality or "").startswith("accuracy")
    quality_measure = f"{quality_in_words(quality)}; {_HIGHER if is_higher else _LOWER}" if quality else ""
    sizes, times, qualities = zip(*((each.size, each.time, each.quality) for each in models), strict=True)
    size_bars = _bars(models, sizes, lambda value, _: size(value))
    time_bars = _bars(models, times, lambda value, digits: f"{number(value, digits)} ms")
    quality_bars = _bars(models, qualities, lambda value, digits: show_quality(quality, value, digits))
    return [
        Panel("Size", f"bytes of the weights, as they are stored; {_LOWER}", words[0], tuple(size_bars)),
        Panel("Speed", f"time of a forward; {_LOWER}", words[1], tuple(time_bars)),
        Panel("Quality", quality_measure, words[2], tuple(quality_bars)),
    ]


def _bars(
    models: Sequence[Model], figures: Sequence[MeasuredFigure | None], shown: Callable[[float, int], str]
) -> Iterator[Bar]:
    """Yield a bar for each model, on a common scale that begins at zero."""
    known = [each for each in figures if each is not None]
    longest = max((each.value + (0.0 if each.is_noisy else each.noise) for each in known), default=0.0)
    shortest = min((each.value for each in known if each.value > 0), default=longest)
    end = min(longest, _LONGEST * shortest) or 1.0
    are_alike = len({each.how for each in known}) <= 1
    for model, each in zip(models, figures, strict=True):
        if each is None:
            yield Bar(model, "not measured")
            continue
        low, middle, high = (
            round(min(max((each.value + error) / end, 0.0), 1.0) * 100, 1) for error in (-each.noise, 0.0, each.noise)
        )
        is_cut, how = each.value > end, "" if are_alike else f" ({each.how})"
        noise = f", {NOT_WELL}" if each.is_noisy else f" ± {shown(each.noise, 2)}" if each.noise else ""
        yield Bar(
            model,
            f"{shown(each.value, 3)}{noise}{how}",
            length=middle,
            noise=(low, high) if each.noise and not is_cut and not each.is_noisy else None,
            is_cut=is_cut,
        )


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

    Figures that were not measured in one way have no best one, nor have those whose noise is too large.
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
    ways = list(dict.fromkeys(figure.how for _, figure in known))
    if len(ways) > 1:
        return f"{measure.title}: not measured alike ({'; '.join(ways)}), so none is called the best."
    noisy = [label for label, figure in known if figure.is_noisy]
    known = [(label, figure) for label, figure in known if not figure.is_noisy]
    if not known:
        return f"{measure.title}: {NOT_WELL}."
    label, best = (max if measure.is_higher_better else min)(known, key=lambda each: each[1].value)
    doubt = f"; {NOT_WELL} for {_listed(noisy)}" if noisy else ""
    if len(known) == 1:
        return f"{measure.title}: measured for {label} alone, {shown(best.value)}{doubt}."
    alike = [other for other, figure in known if other != label and measure.is_alike(best, figure)]
    if len(alike) == len(known) - 1:
        return f"{measure.title}: {NO_DIFFERENCE} between the results ({shown(best.value)}){doubt}."
    sentence = f"{measure.best}: {label}, {shown(best.value)}"
    if alike:
        sentence += f"; {NO_DIFFERENCE} from {_listed(alike)}"
    sentence += doubt
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
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _listed(phrases: Sequence[str]) -> str:
    """Return phrases as a list in words, with at most `_NAMED` of them."""
    more = len(phrases) - _NAMED
    shown = [*phrases[:_NAMED], f"{more} more"] if more > 0 else list(phrases)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _is_same_size(one: MeasuredFigure, other: MeasuredFigure) -> bool:
    return is_same([one.value, other.value], SAME_SIZE)


def _is_same_time(one: MeasuredFigure, other: MeasuredFigure) -> bool:
    return abs(one.value - other.value) <= max(one.noise, other.noise)


def _is_same_quality(one: MeasuredFigure, other: MeasuredFigure) -> bool:
    return is_same([one.value, other.value]) or abs(one.value - other.value) <= hypot(one.noise, other.noise)
