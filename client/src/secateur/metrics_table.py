"""Figures of a job, dense and pruned, as rows for tables, summaries and programs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import JsonValue

from secateur.formatting import count, milliseconds, number, share, times
from secateur_wire.metrics import LossFigure, Metrics, with_noise
from secateur_wire.sizes import size

Unit = Literal["number", "share", "count", "bytes", "milliseconds"]

_SHOWN: Final[Mapping[Unit, Callable[[float | None], str]]] = {
    "number": number,
    "share": share,
    "count": count,
    "bytes": size,
    "milliseconds": milliseconds,
}


@dataclass(frozen=True)
class Figure:
    """One figure of both models.

    `name` is stable. `on` is the dataset or task of the measurement, if any. `noise` is the largest relative difference
    that may be due to chance, where it is known.
    """

    name: str
    unit: Unit
    dense: float | None
    pruned: float | None
    on: str | None = None
    title: str = ""
    dense_stderr: float | None = None
    pruned_stderr: float | None = None
    noise: float | None = None

    @property
    def label(self) -> str:
        what = self.title or self.name.replace("_", " ")
        return f"{what} on {self.on}" if self.on else what

    @property
    def ratio(self) -> float | None:
        """Return pruned over dense."""
        return self.pruned / self.dense if self.pruned is not None and self.dense else None

    @property
    def unproven(self) -> bool:
        """Return whether the models differ by no more than the noise."""
        return self.noise is not None and self.ratio is not None and abs(self.ratio - 1) <= self.noise

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Return label, dense, pruned and ratio as text."""
        return (
            self.label,
            self._shown(self.dense, self.dense_stderr),
            self._shown(self.pruned, self.pruned_stderr),
            with_noise(times(self.ratio), self.noise, self.ratio),
        )

    def document(self) -> dict[str, JsonValue]:
        """Return the row for programs; standard errors and noise only where they are known."""
        row: dict[str, JsonValue] = {"figure": self.name, "on": self.on, "unit": self.unit}
        row |= {"dense": self.dense, "pruned": self.pruned, "ratio": self.ratio}
        if self.pruned_stderr is not None:
            row |= {"dense_stderr": self.dense_stderr, "pruned_stderr": self.pruned_stderr}
        if self.noise is not None:
            row |= {"noise": self.noise, "unproven": self.unproven}
        return row

    def _shown(self, value: float | None, stderr: float | None) -> str:
        return _SHOWN[self.unit](value) if stderr is None else share(value, stderr)


def figures(metrics: Metrics) -> list[Figure]:
    """Return every figure of both models: quality first, then size and speed."""
    quality = (_answers, _perplexities, _accuracies, _tasks)
    return [*(figure for of in quality for figure in of(metrics)), *_costs(metrics)]


def _answers(metrics: Metrics) -> Iterator[Figure]:
    for on, each in metrics.answers.items():
        yield Figure("answer_kl", "number", 0.0, each.kl, on, "KL of answers")
        yield Figure("answer_top_1", "share", 1.0, each.top_1, on, "same likeliest token")
        yield Figure("identical_answers", "share", 1.0, each.identical, on)
        length = each.length
        noise = length.ratio_stderr / length.ratio if length.ratio and length.ratio_stderr is not None else None
        yield Figure("answer_length", "number", length.dense, length.pruned, on, "tokens of answers", noise=noise)
        if each.thoughts is not None:
            thought = each.thoughts.length
            yield Figure("thought_length", "number", thought.dense, thought.pruned, on, "tokens of thoughts")
        for name, figure in (("cut_off", each.greedy.cut_off), ("repetition", each.greedy.repetition)):
            yield Figure(f"answer_{name}", "share", figure.dense, figure.pruned, on)
        if each.score is not None:
            yield Figure("answer_score", "share", each.score.dense, each.score.pruned, on, "right answers")


def _perplexities(metrics: Metrics) -> Iterator[Figure]:
    for on, each in metrics.perplexity.items():
        if each.before_recovery is not None:
            yield Figure("perplexity_before_recovery", "number", each.dense, each.before_recovery, on)
        yield Figure("perplexity", "number", each.dense, each.pruned, on, noise=_relative_error(each))
        bits = each.bits_per_byte
        if bits is not None and bits.bytes is not None:
            if bits.before_recovery is not None:
                yield Figure("bits_per_byte_before_recovery", "number", bits.dense, bits.before_recovery, on)
            yield Figure("bits_per_byte", "number", bits.dense, bits.pruned, on, noise=_relative_error(bits))


def _relative_error(figure: LossFigure) -> float | None:
    return figure.ratio_stderr / figure.ratio if figure.ratio and figure.ratio_stderr is not None else None


def _accuracies(metrics: Metrics) -> Iterator[Figure]:
    for on, each in metrics.accuracy.items():
        if each.before_recovery is not None:
            yield Figure("accuracy_before_recovery", "share", each.dense, each.before_recovery, on)
        errors = each.dense_stderr, each.pruned_stderr
        yield Figure("accuracy", "share", each.dense, each.pruned, on, "", *errors)
        yield Figure("loss", "number", each.dense_loss, each.pruned_loss, on)


def _tasks(metrics: Metrics) -> Iterator[Figure]:
    for on, each in metrics.tasks.items():
        errors = each.dense_stderr, each.pruned_stderr
        yield Figure("task_accuracy", "share", each.dense, each.pruned, on, each.metric or "accuracy", *errors)
    mean = metrics.task_mean
    if mean is not None and len(metrics.tasks) > 1:
        yield Figure("task_mean", "share", mean.dense, mean.pruned, title="mean of the tasks")


def _costs(metrics: Metrics) -> Iterator[Figure]:
    if metrics.parameters is not None:
        dense, nonzero = metrics.parameters.dense, metrics.parameters.nonzero
        yield Figure("parameters", "count", dense, nonzero, title="nonzero parameters")
    if metrics.vocabulary is not None:
        size = metrics.vocabulary
        yield Figure("vocabulary", "count", size.dense, size.pruned, title="tokens in the vocabulary")
    if metrics.flops is not None:
        forward = metrics.flops
        yield Figure("flops", "count", forward.dense, forward.pruned, title="operations per image")
    if metrics.bytes is not None:
        yield Figure("bytes", "bytes", metrics.bytes.dense, metrics.bytes.stored, title="size")
    if metrics.latency is not None:
        timed = metrics.latency
        yield Figure("latency", "milliseconds", timed.dense_ms, timed.pruned_ms, noise=timed.noise)
    for each in metrics.exports:
        speed = each.speed
        if speed is None:
            if (own := each.own_speed) is not None:
                yield Figure("export_bytes", "bytes", None, each.bytes, each.file, "size")
                rates = (("prefill", own.prefill, own.prefill_noise), ("decode", own.decode, own.decode_noise))
                for name, tokens, noise in rates:
                    title = f"{name}, tokens/s"
                    yield Figure(f"export_{name}", "number", None, tokens, each.file, title, noise=noise)
            continue
        yield Figure("export_bytes", "bytes", speed.dense_bytes, each.bytes, each.file, "size")
        for name, rate in (("prefill", speed.prefill), ("decode", speed.decode)):
            title = f"{name}, tokens/s"
            yield Figure(f"export_{name}", "number", rate.dense, rate.pruned, each.file, title, noise=rate.noise)
