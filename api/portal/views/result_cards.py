"""The figures of a finished job as its page lists them: what was measured, dense and pruned, and the change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from api.portal.formatting import count, duration, number, percent, size
from api.portal.views.summary import difference_within_noise, format_distinct
from core.engine.options.latency_budget import latency_noise
from core.service.jobs.gates import TASK_MEAN, stored_bytes

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One figure of both models. `note` is what has to be known to read it."""

    what: str
    dense: str
    pruned: str
    change: str
    note: str = ""


@dataclass(frozen=True)
class Card:
    """A figure that stands out, and a line below it."""

    label: str
    value: str
    below: str


def cards(metrics: Figures) -> list[Card]:
    """Return the cards with the figures a reader looks for first."""
    shown = []
    sizes, parameters, shares = (metrics.get(name) or {} for name in ("bytes", "parameters", "sparsity"))
    stored = stored_bytes(metrics)
    if stored is not None and sizes.get("dense"):
        form = next((form for form in ("packed", "hashed") if form in sizes), "of weights")
        shown.append(Card("Stored", size(stored), f"{form}, of {size(sizes['dense'])}"))
    if parameters:
        shown.append(Card("Parameters not zero", count(parameters["nonzero"]), f"of {count(parameters['dense'])}"))
    if shares:
        shown.append(
            Card(
                "Zero or removed",
                percent(shares["prunable"], 1),
                f"of what could be pruned; {percent(shares['model'], 1)} of all",
            )
        )
    if (metrics.get("latency") or {}).get("dense_ms"):
        latency = metrics["latency"]
        ratio = latency["pruned_ms"] / latency["dense_ms"]
        shown.append(Card("Time, pruned ÷ dense", number(ratio), f"± {percent(latency_noise(latency))} between rounds"))
    if metrics.get("peak_memory_bytes"):
        shown.append(Card("Peak memory", size(metrics["peak_memory_bytes"]), "of the job"))
    if (metrics.get("seconds") or {}).get("total"):
        shown.append(Card("Time it took", duration(metrics["seconds"]["total"]), "this attempt, fetch to store"))
    return shown


@dataclass(frozen=True)
class GateRow:
    """Limit of the job with its figure; a target is one too.

    `unproven`: the limit counts as missed although the figure is below it, because the margin is within the noise.
    """

    what: str
    limit: str
    figure: str
    kept: bool
    unproven: bool


def gate_rows(report: Figures) -> list[GateRow]:
    """Return a row for every gate that was set, on every dataset and task it holds for."""
    rows = []
    for row in report.get("gates", {}).get("rows", ()):
        what = row["gate"].removeprefix("max_").replace(".", ": ").replace("_", " ")
        on = "" if row["on"] is None else ", mean of the tasks" if row["on"] == TASK_MEAN else f", {row['on']}"
        value, margin = row["figure"], row.get("margin", 0.0)
        figure = "not known" if value is None else number(value, 4)
        figure += f" ± {percent(margin)}" if margin and value is not None else ""
        unproven = value is not None and not row["kept"] and value <= row["limit"]
        rows.append(GateRow(what + on, f"{row['limit']:,}", figure, row["kept"], unproven))
    return rows


def evaluation_rows(metrics: Figures) -> list[Row]:
    """Return a row for everything that was measured of both models."""
    return [*_perplexities(metrics), *_accuracies(metrics), *_tasks(metrics), *_flops(metrics), *_latencies(metrics)]


def _perplexities(metrics: Figures) -> Iterator[Row]:
    for name, figure in (metrics.get("perplexity") or {}).items():
        dense, pruned = format_distinct(figure["dense"], figure["pruned"])
        ratio, before = figure.get("ratio"), figure.get("before_recovery")
        note = f"windows of {figure['sequence_length']:,} tokens"
        if before is not None:
            note += f"; {number(before)} before recovery"
        yield Row(f"perplexity, {name}", dense, pruned, "–" if ratio is None else f"× {number(ratio)}", note)


def _accuracies(metrics: Figures) -> Iterator[Row]:
    for name, figure in (metrics.get("accuracy") or {}).items():
        note = f"{figure['samples']:,} images"
        if figure.get("before_recovery") is not None:
            note += f"; {percent(figure['before_recovery'], 2)} before recovery"
        yield _accuracy(f"accuracy, {name}", figure, note)
        dense, pruned = format_distinct(figure["dense_loss"], figure["pruned_loss"])
        change = (
            "–"
            if None in (figure["dense_loss"], figure["pruned_loss"])
            else _signed(figure["pruned_loss"] - figure["dense_loss"])
        )
        yield Row(f"loss, {name}", dense, pruned, change, "cross-entropy, nats an image")


def _tasks(metrics: Figures) -> Iterator[Row]:
    tasks = metrics.get("tasks") or {}
    for name, figure in tasks.items():
        yield _accuracy(f"{name} ({figure['metric']})", figure, f"{figure['samples']:,} questions")
    if len(tasks) > 1:
        mean = metrics["task_mean"]
        change = f"{100 * (mean['pruned'] - mean['dense']):+.2f} points"
        yield Row(f"mean of {len(tasks)} tasks", percent(mean["dense"], 2), percent(mean["pruned"], 2), change)


def _accuracy(what: str, figure: Figures, note: str) -> Row:
    dense, pruned = (
        f"{percent(figure[each], 2)} ± {percent(figure[f'{each}_stderr'], 2)}" for each in ("dense", "pruned")
    )
    change = f"{100 * (figure['pruned'] - figure['dense']):+.2f} points"
    return Row(what, dense, pruned, change, f"{note}; within its error" if difference_within_noise(figure) else note)


def _flops(metrics: Figures) -> Iterator[Row]:
    flops = metrics.get("flops")
    if flops:
        ratio = flops["pruned"] / flops["dense"]
        yield Row("FLOPs for an image", count(flops["dense"]), count(flops["pruned"]), f"× {number(ratio)}")


def _latencies(metrics: Figures) -> Iterator[Row]:
    latency = metrics.get("latency")
    if not latency:
        return
    for each in latency.get("rows") or [latency]:
        ratio, noise = each["pruned_ms"] / each["dense_ms"], latency_noise(each)
        what = (
            f"prefill of {latency['sequence_length']:,} tokens on {latency['device']}"
            if "sequence_length" in latency
            else (
                f"{each['batch']} image{'s' if each['batch'] > 1 else ''} at once, {each['engine']} on {each['device']}"
            )
        )
        note = "within" if abs(ratio - 1) <= noise else "beyond"
        yield Row(
            what,
            f"{number(each['dense_ms'])} ms",
            f"{number(each['pruned_ms'])} ms",
            f"× {number(ratio)}",
            f"{note} the noise of ± {percent(noise)}",
        )
    if "decode_dense_ms" in latency:
        yield Row(
            "decoding a token with the cache",
            f"{number(latency['decode_dense_ms'])} ms",
            f"{number(latency['decode_pruned_ms'])} ms",
            f"× {number(latency['decode_pruned_ms'] / latency['decode_dense_ms'])}",
        )


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"
