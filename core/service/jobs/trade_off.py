"""Trade-off of jobs: the quality of their models against the cost, with the Pareto front.

All functions are pure, and take jobs as the API answers them.
"""

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Final

from pydantic import BaseModel

from core.service.jobs.noise import SAME_SHARE, differs_beyond_errors, is_same
from core.service.jobs.schemas import Job
from secateur_wire.metrics import Accuracy, LossFigure, Metrics, TaskAccuracy, TaskMean, is_noisy, latency_noise
from secateur_wire.sweeps import Cost

Quality = LossFigure | Accuracy | TaskAccuracy | TaskMean
TASK_MEAN = "task_mean"
_NOT_RANKED: Final = "not the same measurement, so these are not ranked against each other."
_GAINS: Final[tuple[Cost, ...]] = ("bytes", "latency")
"""Costs that a user of the model feels; zeros that are stored like any other weight are not among them."""


class TradeOffPoint(BaseModel):
    """A model with its cost and quality.

    The noise of each is the measurement error in both directions, null where it is unknown. `job` is null for a dense
    model. `beaten_by` is the index in the list of a point that is at least as good in both and better in one; null for
    a point on the Pareto front.
    """

    label: str
    job: str | None
    quality: float
    cost: float
    quality_noise: float | None = None
    cost_noise: float | None = None
    beaten_by: int | None


class TradeOff(BaseModel):
    """Quality against cost of the jobs that have both figures.

    `qualities` lists all measured qualities. Lower perplexity, bits per byte and cost are better, and
    higher accuracy.
    """

    quality: str | None
    qualities: list[str]
    cost: Cost
    points: list[TradeOffPoint]
    without: list[str]
    notes: list[str]


def trade_off(jobs: Sequence[Job], labels: Sequence[str], *, quality: str | None, cost: Cost | None) -> TradeOff:
    """Return the chosen quality of each job, and of each dense model they began with, against the chosen cost.

    `quality` None chooses the quality that most jobs have, preferably one in which they differ. `cost` None chooses
    bytes or latency, the first in which they differ, or parameters where neither was measured.
    """
    measured = Counter(name for job in jobs for name in qualities_of(job.measured))
    chosen = quality or max(measured, key=lambda name: (measured[name], _differs(jobs, name)), default=None)
    cost = cost or _differing_cost(jobs)
    points: list[TradeOffPoint] = []
    alike: list[tuple[str, str]] = []
    dense: dict[tuple[str, float, tuple[str, str]], list[tuple[float, str]]] = {}
    used: list[Job] = []
    for job, label in zip(jobs, labels, strict=True):
        figures = qualities_of(job.measured).get(chosen or "")
        before, after = _costs(job.measured, cost)
        if figures is None or figures.pruned is None or after is None:
            continue
        used.append(job)
        noise = latency_noise(job.measured.latency.spread) if cost == "latency" and job.measured.latency else None
        if is_noisy(noise):
            used.pop()
            continue
        alike.append((measured_as(job, cost), measured_as(job, chosen or "")))
        points.append(
            TradeOffPoint(
                label=label,
                job=job.id,
                quality=figures.pruned,
                cost=after,
                quality_noise=getattr(figures, "pruned_stderr", None),
                cost_noise=None if noise is None else noise * after,
                beaten_by=None,
            )
        )
        if figures.dense is not None and before is not None:
            dense.setdefault((job.model, figures.dense, alike[-1]), []).append((before, label))
    measurements = Counter(model for model, *_ in dense)
    for (model, reached, how), costs in dense.items():
        alike.append(how)
        by = f" (of {costs[0][1]})" if measurements[model] > 1 else ""
        middle = median(spent for spent, _ in costs)
        points.append(
            TradeOffPoint(
                label=f"{short_name(model)}, dense{by}", job=None, quality=reached, cost=middle, beaten_by=None
            )
        )
    sign = 1 if chosen is None or is_loss(chosen) else -1
    front: dict[int, int | None] = {}
    for how in dict.fromkeys(alike):  # a point beats only those that were measured as it was
        places = [place for place, each in enumerate(alike) if each == how]
        by_place = beaten_by([(sign * points[place].quality, points[place].cost) for place in places])
        front |= {place: None if by is None else places[by] for place, by in zip(places, by_place, strict=True)}
    ids = {job.id for job in used}
    return TradeOff(
        quality=chosen,
        qualities=sorted(measured, key=lambda name: (-measured[name], name)),
        cost=cost,
        points=[point.model_copy(update={"beaten_by": front[place]}) for place, point in enumerate(points)],
        without=[job.id for job in jobs if job.id not in ids],
        notes=_notes(used, chosen, cost),
    )


def measured_as(job: Job, figure: str) -> str:
    """Return how a job measured latency or a quality, in words; other figures do not depend on it, and have none.

    Figures of jobs are averaged and ranked only where these are equal: the device, the length of a sequence and the
    batch of a latency, the windows of a text, and the numbers of images or questions.
    """
    latency = job.measured.latency
    if figure == "latency" and latency is not None:
        length = None if latency.sequence_length is None else f"{latency.sequence_length:,} tokens"
        batch = None if latency.batch is None else f"batches of {latency.batch}"
        shape = None if latency.image_shape is None else " × ".join(map(str, latency.image_shape))
        parts = (length, batch, shape, latency.engine, latency.device and f"on {latency.device}")
        return ", ".join(part for part in parts if part)
    measured = qualities_of(job.measured).get(figure.replace("bits_per_byte:", "perplexity:", 1))
    if isinstance(measured, LossFigure):
        evaluation, length = job.evaluation, getattr(measured, "sequence_length", None)
        windows = "all" if evaluation.samples is None else f"{evaluation.samples:,}"
        counted = f", counting {evaluation.counted_tokens}" if evaluation.counted_tokens else ""
        return f"{windows} windows{'' if length is None else f' of {length:,} tokens'}{counted}"
    samples = getattr(measured, "samples", None)
    return "" if samples is None else f"{samples:,} samples"


def beaten_by(points: Sequence[tuple[float, float]]) -> list[int | None]:
    """Return for each point the index of a point on the Pareto front that dominates it; None for points on the front.

    Smaller is better in both coordinates. A point dominates another if it is nowhere worse and somewhere better.
    """
    front = [
        number
        for number, (x, y) in enumerate(points)
        if not any(a <= x and b <= y and (a < x or b < y) for a, b in points)
    ]
    members = set(front)
    return [
        None if number in members else next(each for each in front if points[each][0] <= x and points[each][1] <= y)
        for number, (x, y) in enumerate(points)
    ]


def _differing_cost(jobs: Sequence[Job]) -> Cost:
    """Return bytes or latency, the first by which at least two of the jobs differ measurably.

    Jobs that differ in neither are compared by the first cost that was measured.
    """
    for cost in _GAINS:
        known = [spent for job in jobs if (spent := _costs(job.measured, cost)[1]) is not None]
        noise = max((latency_noise(job.measured.latency.spread) for job in jobs if job.measured.latency), default=0.0)
        if len(known) > 1 and not is_same(known, noise if cost == "latency" else SAME_SHARE):
            return cost
    measured = (cost for cost in (*_GAINS, "parameters") for job in jobs if _costs(job.measured, cost)[1] is not None)
    return next(measured, "bytes")


def _differs(jobs: Sequence[Job], quality: str) -> bool:
    figures = [each for job in jobs if (each := qualities_of(job.measured).get(quality)) is not None]
    values = [each.pruned for each in figures if each.pruned is not None]
    return differs_beyond_errors(values, [getattr(each, "pruned_stderr", None) for each in figures])


def is_loss(quality: str) -> bool:
    """Return whether a quality is a figure of the loss, where less is better."""
    return quality.startswith(("perplexity", "bits_per_byte"))


def short_name(model: str) -> str:
    """Return the name of a model for a label; the name of a job's artifact is shortened."""
    return f"job:…{model[-5:]}" if model.startswith("job:") else model


def _costs(metrics: Metrics, cost: Cost) -> tuple[float | None, float | None]:
    """Return the costs of the dense model and of the pruned one; None where they were not measured."""
    match cost:
        case "parameters" if metrics.parameters is not None:
            return metrics.parameters.dense, metrics.parameters.nonzero
        case "bytes" if metrics.bytes is not None:
            return metrics.bytes.dense, metrics.bytes.stored
        case "latency" if metrics.latency is not None:
            return metrics.latency.dense_ms, metrics.latency.pruned_ms
        case _:
            return None, None


def qualities_of(metrics: Metrics) -> dict[str, Quality]:
    """Return the qualities that a job measured, dense and pruned, by name, as perplexity:SET."""
    named: dict[str, Quality] = {f"perplexity:{name}": figures for name, figures in metrics.perplexity.items()}
    named |= {
        f"bits_per_byte:{name}": figures.bits_per_byte
        for name, figures in metrics.perplexity.items()
        if figures.bits_per_byte is not None
    }
    named |= {f"accuracy:{name}": figures for name, figures in [*metrics.accuracy.items(), *metrics.tasks.items()]}
    if len(metrics.tasks) > 1 and metrics.task_mean is not None:
        named[f"accuracy:{TASK_MEAN}"] = metrics.task_mean
    return {name: figures for name, figures in named.items() if figures.pruned is not None}


def _notes(jobs: Sequence[Job], quality: str | None, cost: Cost) -> list[str]:
    """Return notes on everything that makes the figures less comparable than they look."""
    notes = []
    if len(jobs) > 1 and quality and not _differs(jobs, quality):
        notes.append("All jobs have the same quality, as far as it was measured: none is better than another.")
    if len({job.model_revision for job in jobs}) > 1:
        notes.append(
            "The jobs began with different models"
            + (
                "; perplexities are comparable only between models with the same tokenizer."
                if quality and quality.startswith("perplexity")
                else "."
            )
        )
    measured_as = quality.replace("bits_per_byte:", "perplexity:", 1) if quality else ""
    figures = [qualities_of(job.measured)[measured_as] for job in jobs if quality]
    for name, phrase in (("sequence_length", "windows of {} tokens"), ("samples", "{} samples")):
        known = {getattr(each, name, None) for each in figures} - {None}
        if len(known) > 1:
            notes.append(f"Quality was measured on {phrase.format(_several(known))}: {_NOT_RANKED}")
    if quality and is_loss(quality):
        samples = {job.evaluation.samples for job in jobs}
        if len(samples) > 1:
            counts = sorted("all" if each is None else str(each) for each in samples)
            notes.append(f"Perplexity was measured on {' and '.join(counts)} windows: {_NOT_RANKED}")
    if cost == "latency" and len(jobs) > 1:
        notes.append("Each latency is of its job's own run; a dense model's is the middle of those measured.")
        for name, phrase in (("device", "devices"), ("sequence_length", "sequence lengths"), ("batch", "batch sizes")):
            known = {getattr(job.measured.latency, name, None) for job in jobs}
            if len(known) > 1:
                notes.append(f"Latency was measured on different {phrase}: {_several(known)}: {_NOT_RANKED}")
    return notes


def _several(values: set[object]) -> str:
    return " and ".join(sorted(map(str, values)))
