"""Figures of a finished job: dense, pruned, and the change."""

from collections.abc import Iterator
from dataclasses import dataclass

from api.portal.formatting import count, duration, number, percent, size
from api.portal.views.summary import NO_DIFFERENCE, format_distinct
from core.pipeline.reports.report import Report
from core.pipeline.reports.verdict import within_error
from core.service.jobs.gates import TASK_MEAN
from secateur_wire.metrics import (
    NOT_WELL,
    LossFigure,
    MeasuredAccuracy,
    Metrics,
    TaskMean,
    is_noisy,
    latency_noise,
    with_noise,
)


@dataclass(frozen=True)
class Row:
    """One figure of both models. `note` explains it."""

    what: str
    dense: str
    pruned: str
    change: str
    note: str = ""


@dataclass(frozen=True)
class Card:
    """A main figure, with a line below it."""

    label: str
    value: str
    below: str


def cards(metrics: Metrics) -> list[Card]:
    """Return the cards with the main figures."""
    shown = []
    sizes, parameters, shares = metrics.bytes, metrics.parameters, metrics.sparsity
    if sizes is not None and sizes.stored is not None and sizes.dense:
        form = sizes.restored_from or "of weights"
        shown.append(Card("Stored", size(sizes.stored), f"{form}, of {size(sizes.dense)}"))
    if parameters is not None:
        shown.append(Card("Parameters not zero", count(parameters.nonzero), f"of {count(parameters.dense)}"))
    if shares is not None:
        shown.append(
            Card(
                "Zero or removed",
                percent(shares.prunable, 1),
                f"of what could be pruned; {percent(shares.model, 1)} of all",
            )
        )
    shown += [
        Card(
            f"Tokens/s, {each.type}, pruned ÷ dense",
            _against_noise(each.speed.decode.ratio, each.speed.decode.noise)[0],
            f"{number(each.speed.decode.dense)} → {number(each.speed.decode.pruned)} written"
            + ("" if is_noisy(noise := each.speed.decode.noise) else f", ± {percent(noise)} between rounds"),
        )
        for each in metrics.exports[-1:]
        if each.speed is not None
    ]
    if metrics.peak_memory_bytes:
        shown.append(Card("Peak memory", size(metrics.peak_memory_bytes), "of the job"))
    if metrics.seconds is not None and metrics.seconds.total:
        shown.append(Card("Time it took", duration(metrics.seconds.total), "this attempt, fetch to store"))
    return shown


@dataclass(frozen=True)
class GateRow:
    """Limit of the job with its figure; a target is a limit too.

    `unproven`: the limit counts as missed although the figure is below it, because the margin is within the noise.
    """

    what: str
    limit: str
    figure: str
    kept: bool
    unproven: bool


def gate_rows(report: Report) -> list[GateRow]:
    """Return a row for every gate, on every dataset and task to which it applies."""
    rows = []
    for row in report.gates.rows if report.gates is not None else ():
        what = row.gate.removeprefix("max_").replace(".", ": ").replace("_", " ")
        on = "" if row.on is None else ", mean of the tasks" if row.on == TASK_MEAN else f", {row.on}"
        figure = "not known" if row.figure is None else number(row.figure, 4)
        if row.margin and row.figure is not None:
            figure = NOT_WELL if is_noisy(row.margin) else f"{figure} ± {percent(row.margin)}"
        rows.append(GateRow(what + on, f"{row.limit:,}", figure, bool(row.kept), row.unproven))
    return rows


def evaluation_rows(metrics: Metrics) -> list[Row]:
    """Return a row for every figure of both models."""
    measured = (_perplexities, _accuracies, _tasks, _flops, _latencies, _exports)
    return [row for rows in measured for row in rows(metrics)]


def _perplexities(metrics: Metrics) -> Iterator[Row]:
    for name, figure in metrics.perplexity.items():
        yield _loss(f"perplexity, {name}", figure, f"windows of {figure.sequence_length:,} tokens")
        bits = figure.bits_per_byte
        if bits is not None and bits.bytes is not None:
            yield _loss(f"bits per byte, {name}", bits, f"{bits.tokens:,} predicted tokens of {bits.bytes:,} bytes")


def _loss(what: str, figure: LossFigure, note: str) -> Row:
    dense, pruned = format_distinct(figure.dense, figure.pruned)
    if figure.before_recovery is not None:
        note += f"; {number(figure.before_recovery)} before recovery"
    change = "–" if figure.ratio is None else f"× {number(figure.ratio)}"
    if figure.ratio is not None and figure.ratio_stderr is not None:
        change += f" ± {number(figure.ratio_stderr, 2)}"
        note += "; within its error" if figure.is_within_error else ""
    return Row(what, dense, pruned, change, note)


def _accuracies(metrics: Metrics) -> Iterator[Row]:
    for name, figure in metrics.accuracy.items():
        note = f"{figure.samples:,} images"
        if figure.before_recovery is not None:
            note += f"; {percent(figure.before_recovery, 2)} before recovery"
        yield _accuracy(f"accuracy, {name}", figure, note)
        dense, pruned = format_distinct(figure.dense_loss, figure.pruned_loss)
        change = "–"
        if figure.dense_loss is not None and figure.pruned_loss is not None:
            change = _signed(figure.pruned_loss - figure.dense_loss)
        yield Row(f"loss, {name}", dense, pruned, change, "mean cross-entropy of an image")


def _tasks(metrics: Metrics) -> Iterator[Row]:
    for name, figure in metrics.tasks.items():
        yield _accuracy(f"{name} ({figure.metric})", figure, f"{figure.samples:,} questions")
    mean = metrics.task_mean
    if len(metrics.tasks) > 1 and mean is not None:
        what = f"mean of {len(metrics.tasks)} tasks"
        yield Row(what, percent(mean.dense, 2), percent(mean.pruned, 2), _points(mean))


def _accuracy(what: str, figure: MeasuredAccuracy, note: str) -> Row:
    dense = f"{percent(figure.dense, 2)} ± {percent(figure.dense_stderr, 2)}"
    pruned = f"{percent(figure.pruned, 2)} ± {percent(figure.pruned_stderr, 2)}"
    within = within_error(figure)
    return Row(what, dense, pruned, _points(figure), f"{note}; within its error" if within else note)


def _points(figure: TaskMean) -> str:
    return "–" if figure.change is None else f"{100 * figure.change:+.2f} points"


def _flops(metrics: Metrics) -> Iterator[Row]:
    flops = metrics.flops
    if flops is not None and flops.dense and flops.pruned is not None:
        ratio = flops.pruned / flops.dense
        yield Row("FLOPs for an image", count(flops.dense), count(flops.pruned), f"× {number(ratio)}")


def _latencies(metrics: Metrics) -> Iterator[Row]:
    latency = metrics.latency
    if latency is None:
        return
    for each in latency.rows or [latency]:
        if each.dense_ms is None or each.pruned_ms is None or each.ratio is None:
            continue
        what = (
            f"reading {latency.sequence_length:,} tokens at once (prefill) on {latency.device}"
            if latency.sequence_length is not None
            else f"{each.batch} image{'' if each.batch == 1 else 's'} at once, {each.engine} on {each.device}"
        )
        yield Row(
            what,
            f"{number(each.dense_ms)} ms",
            f"{number(each.pruned_ms)} ms",
            *_against_noise(each.ratio, latency_noise(each.spread)),
        )
    if latency.decode_dense_ms and latency.decode_pruned_ms is not None:
        yield Row(
            "decoding a token with the cache",
            f"{number(latency.decode_dense_ms)} ms",
            f"{number(latency.decode_pruned_ms)} ms",
            *_against_noise(
                latency.decode_pruned_ms / latency.decode_dense_ms,
                latency_noise(latency.decode_spread or latency.spread),
            ),
        )


def _exports(metrics: Metrics) -> Iterator[Row]:
    for each in metrics.exports:
        note = ""
        if each.kl is not None and each.top_1 is not None:
            note = (
                f"KL divergence {each.kl:.2g} from the artifact; the same likeliest token for {percent(each.top_1, 1)}"
            )
        speed = each.speed
        if speed is None:
            yield Row(each.file, "–", size(each.bytes), "–", note)
            if (own := each.own_speed) is not None:
                reading = f"reading a prompt of {own.prompt_tokens:,} tokens"
                rates = (reading, own.prefill, own.prefill_noise), ("writing after it", own.decode, own.decode_noise)
                for what, tokens, noise in rates:
                    yield Row(f"{each.file}, {what}", "–", with_noise(f"{number(tokens)} tokens/s", noise), "–", "")
            continue
        yield Row(each.file, size(speed.dense_bytes), size(each.bytes), _times(each.bytes / speed.dense_bytes), note)
        reading = f"reading a prompt of {speed.prompt_tokens:,} tokens"
        for what, rate in ((reading, speed.prefill), ("writing after it", speed.decode)):
            yield Row(
                f"{each.file}, {what}",
                f"{number(rate.dense)} tokens/s",
                f"{number(rate.pruned)} tokens/s",
                *_against_noise(rate.ratio, rate.noise),
            )


def _times(ratio: float) -> str:
    return f"× {number(ratio)}"


def _against_noise(ratio: float, noise: float) -> tuple[str, str]:
    """Return the change of a time and a note on it."""
    if is_noisy(noise):
        return NOT_WELL, "rounds of one model differ by more than half"
    if abs(ratio - 1) <= noise:
        return NO_DIFFERENCE, f"{_times(ratio)}, within the noise of ± {percent(noise)}"
    return _times(ratio), f"beyond the noise of ± {percent(noise)}"


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"
