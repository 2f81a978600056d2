"""How the command line speaks: tables and plain words on stdout, or one JSON document; all else on stderr."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from pydantic import BaseModel, JsonValue
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from secateur.client import Client
from secateur.errors import ApiError
from secateur.types import Job, Metrics, TargetReached

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job, for example job_01ARZ3NDEKTSV4RRFFQ69G5FAV.")]

RETRIES: Final = 3
WORTH_TELLING_SECONDS: Final = 1.0

WIDE: Final = 500
"""Columns where stdout is no terminal: what a program reads is not folded."""


def connect() -> Client:
    """A client of the configured server that says when it waits."""
    return Client(retries=RETRIES, on_retry=_tell_retry)


def _tell_retry(error: Exception, pause: float) -> None:
    if pause >= WORTH_TELLING_SECONDS:
        explain(f"{error}; trying again in {pause:.0f} s")


def explain(error: Exception | str) -> None:
    """One line on stderr: what was wrong."""
    message = str(error)
    if isinstance(error, ApiError):
        where = f"{error.param}: " if error.param and not message.startswith(error.param) else ""
        message = f"{where}{message} ({error.code}, HTTP {error.status})"
    print(f"secateur: {message}", file=sys.stderr)


def print_json(value: BaseModel | Sequence[BaseModel] | JsonValue) -> None:
    """Answers are printed as the server gave them."""
    json.dump(_plain(value), sys.stdout, ensure_ascii=False, indent=2, allow_nan=False)
    print()


def _plain(value: BaseModel | Sequence[BaseModel] | JsonValue) -> JsonValue:
    if isinstance(value, BaseModel):
        plain: JsonValue = value.model_dump(mode="json", exclude_unset=True)
        return plain
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value  # type: ignore[return-value]


def say(text: str) -> None:
    """A line on stdout, as it is."""
    _console().print(Text(text), soft_wrap=True)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> None:
    """A table; `numbers` are the columns to align right."""
    right = set(numbers)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, header in enumerate(headers):
        # Only first columns are ids and names one copies: they are never folded.
        table.add_column(header, justify="right" if index in right else "left", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _console().print(table)


def print_pairs(pairs: Iterable[tuple[str, str | None]]) -> None:
    """Names and values, one pair a line; pairs without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            grid.add_row(name, Text(value))
    _console().print(grid)


def printable(text: str) -> str:
    """A model's own text without control characters, which a terminal would obey; tabs and ends of lines stay."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def print_job(job: Job) -> None:
    """All a person wants to know of a job: where it stands, what was asked, what came out."""
    print_pairs(
        [
            ("job", job.id),
            ("status", job.status if job.finished or not job.stage else f"{job.status}, stage {job.stage}"),
            ("progress", None if job.finished else f"{job.progress:.0%}"),
            ("error", f"{job.error.message} ({job.error.code})" if job.error else None),
            ("model", job.model),
            (
                "method",
                job.method + (f", {job.pattern}, sparsity {job.sparsity:g}" if job.sparsity is not None else ""),
            ),
            ("target", _target(job.target, job.metrics.target if job.metrics else None)),
            ("recovery", _recovery(job.recovery)),
            ("attempt", str(job.attempt) if job.attempt > 1 else None),
            ("submitted", moment(job.created_at)),
            ("finished", moment(job.finished_at) if job.finished_at else None),
            ("metadata", ", ".join(f"{key}={value}" for key, value in job.metadata.items()) or None),
        ]
    )
    if job.metrics is not None:
        print_metrics(job.metrics)


def _target(asked: Mapping[str, float] | None, reached: TargetReached | None) -> str | None:
    """What was asked, and once it is known what that came to."""
    if asked is None:
        return None
    ((kind, figure),) = asked.items()
    return f"at most {figure:,} {kind}" + (f", reached {reached.reached:,.6g}" if reached else "")


def _recovery(recovery: dict[str, JsonValue] | None) -> str | None:
    return None if recovery is None else f"{recovery.get('method')}, {recovery.get('steps')} steps"


def print_metrics(metrics: Metrics) -> None:
    """Dense beside pruned, then what the run took."""
    rows: list[tuple[str, str, str, str]] = []
    for name, figures in metrics.perplexity.items():
        if figures.before_recovery is not None:
            unrecovered = figures.before_recovery
            ratio = times(_ratio(unrecovered, figures.dense))
            rows.append((f"perplexity on {name}, before recovery", number(figures.dense), number(unrecovered), ratio))
        rows.append((f"perplexity on {name}", number(figures.dense), number(figures.pruned), times(figures.ratio)))
    for name, measured in metrics.accuracy.items():
        shown = (_accuracy(measured.dense, measured.dense_stderr), _accuracy(measured.pruned, measured.pruned_stderr))
        if measured.before_recovery is not None:
            rows.append((f"accuracy on {name}, before recovery", shown[0], _accuracy(measured.before_recovery), "–"))
        rows.append((f"accuracy on {name}", *shown, times(_ratio(measured.pruned, measured.dense))))
        losses = (measured.dense_loss, measured.pruned_loss)
        rows.append((f"loss on {name}", number(losses[0]), number(losses[1]), times(_ratio(losses[1], losses[0]))))
    rows += _task_rows(metrics)
    if metrics.parameters is not None:
        dense, nonzero = metrics.parameters.dense, metrics.parameters.nonzero
        rows.append(("nonzero parameters", count(dense), count(nonzero), times(_ratio(nonzero, dense))))
    if metrics.flops is not None:
        forward = metrics.flops
        ratio = times(_ratio(forward.pruned, forward.dense))
        rows.append(("operations per image", count(forward.dense), count(forward.pruned), ratio))
    if metrics.bytes is not None:
        dense, artifact = metrics.bytes.dense, metrics.bytes.artifact
        rows.append(("size", size(dense), size(artifact), times(_ratio(artifact, dense))))
    if metrics.latency is not None:
        before, after = metrics.latency.dense_ms, metrics.latency.pruned_ms
        rows.append(("latency", milliseconds(before), milliseconds(after), times(_ratio(after, before))))
    if rows:
        print_table(("", "dense", "pruned", "ratio"), rows, numbers=(1, 2, 3))
    sparsity, seconds = metrics.sparsity, metrics.seconds
    print_pairs(
        [
            ("sparsity of prunable weights", percent(sparsity.prunable) if sparsity else None),
            ("sparsity of the model", percent(sparsity.model) if sparsity else None),
            ("time, pruning", duration(seconds.prune) if seconds and seconds.prune is not None else None),
            ("time, total", duration(seconds.total) if seconds and seconds.total is not None else None),
            ("peak memory", None if metrics.peak_memory_bytes is None else size(metrics.peak_memory_bytes)),
        ]
    )


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s"


def percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def times(value: float | None) -> str:
    return "–" if value is None else f"× {value:.3g}"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def count(value: int | None) -> str:
    """135 million as `134.5 M`."""
    return "–" if value is None else _scaled(value, 1000, ("", " k", " M", " G", " T"))


def size(value: int | None) -> str:
    """Bytes in powers of 1000."""
    return "–" if value is None else _scaled(value, 1000, (" B", " kB", " MB", " GB", " TB"))


def moment(time: datetime) -> str:
    """In the local time zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(time: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max((datetime.now(UTC) - time).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _task_rows(metrics: Metrics) -> list[tuple[str, str, str, str]]:
    rows = [
        (
            f"{task.metric} on {name}",
            _accuracy(task.dense, task.dense_stderr),
            _accuracy(task.pruned, task.pruned_stderr),
            times(_ratio(task.pruned, task.dense)),
        )
        for name, task in metrics.tasks.items()
    ]
    mean = metrics.task_mean
    if mean is not None and len(rows) > 1:
        ratio = times(_ratio(mean.pruned, mean.dense))
        rows.append(("mean of the tasks", _accuracy(mean.dense), _accuracy(mean.pruned), ratio))
    return rows


def _accuracy(value: float | None, stderr: float | None = None) -> str:
    """A share of questions, with its standard error."""
    return (percent(value) or "–") + (f" ± {stderr:.2%}" if stderr is not None else "")


def _scaled(value: float, step: int, units: Sequence[str]) -> str:
    unit = 0
    while abs(value) >= step and unit < len(units) - 1:
        value /= step
        unit += 1
    return f"{value:.0f}{units[unit]}" if unit == 0 else f"{value:.1f}{units[unit]}"


def _ratio(value: float | None, to: float | None) -> float | None:
    return value / to if value is not None and to else None


def _console() -> Console:
    """A new one each time: it belongs to the stdout of the moment."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=WIDE)
