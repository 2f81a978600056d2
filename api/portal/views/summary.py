"""Summary of a job's result: dense against pruned, in one plain sentence."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from api.portal.formatting import count, duration, number, percent, size
from core.methods.registry import get_method
from core.pipeline.reports.report import Report
from core.pipeline.reports.verdict import mean_of_tasks, within_error
from secateur_wire.equal_bytes import in_words
from secateur_wire.jobs import Verdict
from secateur_wire.metrics import NOT_WELL, MeasuredAccuracy, Metrics, Perplexity, is_noisy, latency_noise

Figures = TypeVar("Figures")
Body = Mapping[str, Any]

SAME_SIZE = 0.01
"""Relative difference of bytes that counts as none: file headers, or a tied head that is written twice."""
_NAMED = 2
"""Maximum number of texts, or image sets, in the sentence; the table has all."""
_NOT_A_NUMBER = "no longer a number"
NO_DIFFERENCE = "no difference seen"
"""Words for a time, or another figure, that is equal to the dense model's within its noise."""


@dataclass(frozen=True)
class ResultSummary:
    """Summary sentence of a result, with remarks."""

    sentence: str
    remarks: tuple[str, ...] = ()
    points: tuple[tuple[str, str], ...] = ()
    """Points for a reader without knowledge of the field: questions with their answers."""


def summarise(recipe: Body, metrics: Metrics, report: Report, verdict: Verdict | None) -> ResultSummary:
    """Return the summary of a job with figures, from its body, metrics, report and verdict.

    The sentence begins with the verdict and says what was not measured. A difference within its measurement noise
    counts as none.
    """
    method = get_method(recipe["method"])
    if method.measures:
        return _of_sensitivity(metrics)
    parts = [size_in_words(metrics), _quality(metrics), _speed(recipe, metrics, report)]
    figures = ", ".join(part for part in parts if part)
    sentence = figures if verdict is None else f"{verdict.words}: {figures}"
    remarks = _remarks(recipe, metrics, report)
    return ResultSummary(f"{_capitalized(sentence)}.", tuple(remarks), tuple(_points(recipe, metrics, report, verdict)))


def format_distinct(dense: float | None, pruned: float | None) -> tuple[str, str]:
    """Format two figures with as few digits as tell them apart: three to five."""
    for digits in (3, 4, 5):
        shown = _shown(dense, digits), _shown(pruned, digits)
        if shown[0] != shown[1]:
            return shown
    return _shown(dense, 3), _shown(pruned, 3)


def _capitalized(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _shown(figure: float | None, digits: int) -> str:
    return _NOT_A_NUMBER if figure is None else number(figure, digits)


def is_smaller_network(recipe: Body, metrics: Metrics, report: Report) -> bool:
    """Return whether weights were removed, not only set to zero, so that there is less to compute."""
    remaining = (report.artifact or {}).get("parameters")
    dense = None if metrics.parameters is None else metrics.parameters.dense
    if not isinstance(remaining, int) or dense is None:
        return get_method(recipe["method"]).variant(recipe.get("pattern")).shrinks
    return remaining < dense


def size_in_words(metrics: Metrics) -> str:
    """Return how the size of the stored weights compares with the dense model's."""
    sizes = metrics.bytes
    if sizes is None or not sizes.dense or not sizes.stored:
        return "size not measured"
    dense, stored = sizes.dense, sizes.stored
    ratio = dense / stored
    if ratio > 1 + SAME_SIZE:
        return f"{ratio:.1f}× smaller" if ratio >= 1.15 else f"{percent(1 - stored / dense)} smaller"
    if ratio < 1 - SAME_SIZE:
        return f"{percent(stored / dense - 1)} larger"
    share = None if metrics.sparsity is None else metrics.sparsity.prunable
    return f"as large as before with {percent(share)} of the prunable weights zero" if share else "as large as before"


def _quality(metrics: Metrics) -> str:
    parts = [_several(metrics.perplexity, _perplexity), _several(metrics.accuracy, _accuracy), _tasks(metrics)]
    return ", ".join(part for part in parts if part) or "quality not measured"


def _several(figures: Mapping[str, Figures], say: Callable[[Figures, str], str]) -> str:
    if len(figures) == 1:
        return say(next(iter(figures.values())), "")
    phrases = [say(figure, f" on {name}") for name, figure in list(figures.items())[:_NAMED]]
    more = len(figures) - _NAMED
    return ", ".join(phrases) + (f" and {more} more" if more > 0 else "")


def _perplexity(figure: Perplexity, place: str) -> str:
    dense, pruned = format_distinct(figure.dense, figure.pruned)
    before = figure.before_recovery
    recovered = f" ({number(before)} before recovery)" if before is not None else ""
    noise = " (no difference within its error)" if figure.is_within_error else ""
    return f"perplexity{place} {dense} → {pruned}{recovered}{noise}"


def _accuracy(figure: MeasuredAccuracy, place: str) -> str:
    noise = " (no difference within its error)" if within_error(figure) else ""
    return f"accuracy{place} {percent(figure.dense, 1)} → {percent(figure.pruned, 1)}{noise}"


def _tasks(metrics: Metrics) -> str:
    tasks = metrics.tasks
    if not tasks:
        return ""
    if len(tasks) == 1:
        ((name, figure),) = tasks.items()
        return _accuracy(figure, f" on {name}")
    return _accuracy(mean_of_tasks(metrics), f" on {len(tasks)} tasks") if metrics.task_mean is not None else ""


def _speed(recipe: Body, metrics: Metrics, report: Report) -> str:
    is_smaller, latency = is_smaller_network(recipe, metrics, report), metrics.latency
    if latency is None or latency.ratio is None:
        return "speed not measured" if is_smaller else "no speed-up expected"
    words = time_in_words(metrics)
    return f"{words} in time (± {percent(latency_noise(latency.spread))})" if words == NO_DIFFERENCE else words


def time_in_words(metrics: Metrics) -> str:
    """Return how the time of a forward compares with the dense model's; "not measured" without it."""
    latency = metrics.latency
    if latency is None or latency.ratio is None:
        return "not measured"
    ratio = latency.ratio
    noise = latency_noise(latency.spread)
    if is_noisy(noise):
        return f"speed {NOT_WELL}"
    if abs(ratio - 1) <= noise:
        return NO_DIFFERENCE
    times = 1 / ratio if ratio < 1 else ratio
    factor = f"{times:.1f}×" if times >= 1.15 else percent(times - 1)
    return f"{factor} {'faster' if ratio < 1 else 'slower'}"


def _points(recipe: Body, metrics: Metrics, report: Report, verdict: Verdict | None) -> Iterator[tuple[str, str]]:
    """Yield the points about size, speed, loss and cost, as far as each was measured."""
    sizes, parameters = metrics.bytes, metrics.parameters
    if sizes is not None and sizes.dense and sizes.stored:
        counted = ""
        if parameters is not None and parameters.dense and parameters.nonzero is not None:
            counted = f"; {count(parameters.dense)} → {count(parameters.nonzero)} parameters that are not zero"
        yield _size_label(sizes.dense / sizes.stored), f"{size(sizes.dense)} → {size(sizes.stored)}{counted}"
    timings = list(_timings(metrics))
    labels = {label for label, _ in timings}
    label = labels.pop() if len(labels) == 1 else "Speed"
    yield label, "; ".join(text for _, text in timings) or _capitalized(_speed(recipe, metrics, report))
    if metrics.alternatives:
        copies = (f"{each.name} {size(each.bytes)} ({each.words})" for each in metrics.alternatives)
        yield "Without pruning", "; ".join(copies)
    if metrics.equal_bytes:
        yield "At equal bytes", _capitalized(in_words(metrics.equal_bytes))
    if verdict is not None:
        yield "Costs", _capitalized(verdict.reason)
    else:
        yield "Costs", "Quality was not measured: name evaluation datasets in the next job"
    if metrics.seconds is not None and metrics.seconds.total:
        memory = f", {size(metrics.peak_memory_bytes)} of memory" if metrics.peak_memory_bytes else ""
        yield "Took", f"{duration(metrics.seconds.total)}{memory}"


def _size_label(ratio: float) -> str:
    """Return the label of a size, given the dense model's relative to it."""
    return "Smaller" if ratio > 1 + SAME_SIZE else "Larger" if ratio < 1 - SAME_SIZE else "No smaller"


def _timings(metrics: Metrics) -> Iterator[tuple[str, str]]:
    """Yield the timed runtimes with their labels, including those of exported files."""
    latency = metrics.latency
    if latency is not None and latency.ratio is not None:
        where = f" on {latency.device}" if latency.device else ""
        text = f"{number(latency.dense_ms)} → {number(latency.pruned_ms)} ms a forward{where}"
        yield _timing(text, latency.ratio, latency_noise(latency.spread), is_faster=latency.ratio < 1)
    for each in metrics.exports:
        if each.speed is not None:
            rate = each.speed.decode
            text = f"{each.file}: {number(rate.dense)} → {number(rate.pruned)} tokens/s written"
            yield _timing(text, rate.ratio, rate.noise, is_faster=rate.ratio > 1)


def _timing(text: str, ratio: float, noise: float, *, is_faster: bool) -> tuple[str, str]:
    """Return a timed runtime with its label, for a ratio of times or of rates."""
    if is_noisy(noise):
        return "Speed", f"{text} ({NOT_WELL})"
    if abs(ratio - 1) <= noise:
        return "No faster", f"{text} ({NO_DIFFERENCE})"
    return "Faster" if is_faster else "Slower", text


def _remarks(recipe: Body, metrics: Metrics, report: Report) -> list[str]:
    remarks = []
    is_smaller, latency, sizes = is_smaller_network(recipe, metrics, report), metrics.latency, metrics.bytes
    if metrics.sparsity is not None and metrics.sparsity.prunable and not is_smaller:
        who = _engine_requirement(recipe.get("pattern"))
        if sizes is not None and sizes.restored_from is not None:
            remarks.append(f"The smaller files unpack to files that have the zeros too: {who}")
        else:
            remarks.append(
                "The zeros are stored like any other weight, so they make the files no smaller. The output format "
                f"packed leaves them out of the files; {who}"
            )
    if latency is None or latency.dense_ms is None or latency.pruned_ms is None or latency.ratio is None:
        return [*remarks, "How fast it runs was not measured: see the notes of the report."] if is_smaller else remarks
    noise = latency_noise(latency.spread)
    differs = abs(latency.ratio - 1) > noise
    if is_noisy(noise):
        remarks.append(f"Times were {NOT_WELL}: the slowest round of one model took more than half as long again.")
    elif is_smaller and not differs:
        remarks.append(
            f"Timed in turn, dense took {number(latency.dense_ms)} ms and pruned {number(latency.pruned_ms)} ms; "
            f"rounds of one model differ by up to {percent(latency.spread)}, so this tells no difference."
        )
    elif differs and not is_smaller:
        remarks.append(
            "Both models do the same arithmetic. A difference in time comes from the machine, not from pruning."
        )
    return remarks


def _engine_requirement(pattern: object) -> str:
    if isinstance(pattern, str) and ":" in pattern:
        kernels = f"kernels for {pattern}, such as the sparse tensor cores of NVIDIA GPUs for 2:4"
        return f"a speed-up needs an engine with {kernels}."
    return "a speed-up needs an engine with kernels for sparse weights; ordinary kernels multiply the zeros too."


def _of_sensitivity(metrics: Metrics) -> ResultSummary:
    sensitivity = metrics.sensitivity
    if sensitivity is None:
        return ResultSummary("Nothing was pruned, and no sensitivity was measured.")
    return ResultSummary(
        f"Nothing was pruned: of {sensitivity.layers} layers, each measured alone at {sensitivity.rates} rates, "
        f"{sensitivity.most_sensitive} loses most."
    )
