"""Output of the command line: tables and text, or one JSON document, on stdout; everything else on stderr.

Texts of others (servers, models, files) may hold control characters. Whatever is printed is escaped once, as in JSON:
`escaped_output` does so for all that is written to stdout and stderr, and a `Printer` for what it draws.
"""

import json
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TextIO, cast

import typer
from pydantic import BaseModel, JsonValue
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from secateur.client import Client
from secateur.errors import ApiError
from secateur.formatting import duration, percent, printable
from secateur.jobs import Job
from secateur.metrics_table import figures
from secateur_wire.discoveries import Discovery
from secateur_wire.job_options import option_of
from secateur_wire.metrics import Alternative, Metrics, TargetReached
from secateur_wire.progress import between
from secateur_wire.sizes import size

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]

RETRIES: Final = 3
WORTH_TELLING_SECONDS: Final = 1.0


class EscapedStream:
    """Text stream that escapes control characters. It has no `buffer` of bytes, which would be a way past that."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.encoding, self.errors = stream.encoding, stream.errors
        self.flush, self.isatty, self.fileno = stream.flush, stream.isatty, stream.fileno

    def write(self, text: str) -> int:
        return self.stream.write(printable(text))


@contextmanager
def escaped_output() -> Iterator[None]:
    """Escape control characters in all that is written to stdout and stderr, the traceback of a defect too."""
    out, err = (cast(TextIO, EscapedStream(each)) for each in (sys.stdout, sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        except Exception:
            traceback.print_exc()
            sys.exit(1)


class Printer(Console):
    """Console on stdout or stderr that escapes control characters in what it draws."""

    def __init__(self, *, stderr: bool = False, markup: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        super().__init__(file=getattr(stream, "stream", stream), highlight=False, markup=markup, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def connect() -> Client:
    """Return a client of the configured server that prints a line when it waits for a retry."""
    return Client(retries=RETRIES, on_retry=_explain_retry)


def _explain_retry(error: Exception, pause: float) -> None:
    if pause >= WORTH_TELLING_SECONDS:
        explain(f"{error}; trying again in {pause:.0f} s")


class WaitPrinter:
    """Printer of a line on stderr for each state of a discovery that the command waits for."""

    def __init__(self) -> None:
        self._shown: str | None = None

    def __call__(self, discovery: Discovery) -> None:
        if discovery.state != self._shown:
            self._shown = discovery.state
            doing = "a worker is examining it" if discovery.state == "running" else "waiting for a worker"
            print(f"secateur: examining {discovery.architecture}: {doing}", file=sys.stderr)


def explain(error: Exception | str) -> None:
    """Print a line on stderr that explains a fault."""
    message = str(error)
    if isinstance(error, ApiError):
        message = f"{_with_place(message, error.param) if error.param else message} ({error.code}, HTTP {error.status})"
    print(printable(f"secateur: {message}"), file=sys.stderr)


def _with_place(message: str, param: str) -> str:
    """Return a message about a field that begins with its place: the option, if that was typed, else the field."""
    begins = message.startswith(param)
    option = option_of(param)
    if not any(each.partition("=")[0] == option for each in sys.argv):
        return message if begins else f"{param}: {message}"
    return option + message.removeprefix(param) if begins else f"{option}: {message}"


def print_json(value: BaseModel | Sequence[BaseModel] | JsonValue) -> None:
    """Print answers as JSON, as the server sent them."""
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
    """Print a line on stdout, as long as it is."""
    print(text)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> None:
    """Print a table; `numbers` are the columns to align right. Where stdout is no terminal, tabs separate the cells."""
    if not sys.stdout.isatty():
        for cells in (headers, *rows):
            print("\t".join(" ".join(printable(cell).split()) for cell in cells))
        return
    right = set(numbers)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, header in enumerate(headers):
        # Only first columns have ids and names that users copy: they are never wrapped.
        table.add_column(header, justify="right" if index in right else "left", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Printer().print(table)


def print_pairs(pairs: Iterable[tuple[str, str | None]]) -> None:
    """Print names and values, one pair per line; pairs without a value are left out."""
    given = [(name, value) for name, value in pairs if value is not None]
    if not sys.stdout.isatty():
        width = max((len(name) for name, _ in given), default=0)
        for name, value in given:
            print(f"{name:<{width}}  {value}")
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in given:
        grid.add_row(name, Text(printable(value)))
    Printer().print(grid)


def print_job(job: Job) -> None:
    """Print the state, the request and the results of a job; first whether the model still answers, if known."""
    verdict = None if job.verdict is None else f"{job.verdict.words}: {job.verdict.reason}"
    if job.verdict is not None and job.verdict.answers is not None:
        say(f"{verdict}\n")
        verdict = None
    print_pairs(
        [
            ("job", job.id),
            ("status", job.status if job.finished or not job.stage else f"{job.status}, stage {job.stage}"),
            ("waits", job.waiting_reason),
            ("progress", None if job.finished else f"{job.progress:.0%}{_left(job)}"),
            ("error", f"{job.error.message} ({job.error.code})" if job.error else None),
            ("model", job.model),
            (
                "method",
                job.method + (f", {job.pattern}, sparsity {job.sparsity:g}" if job.sparsity is not None else ""),
            ),
            ("target", _target(job.target, job.metrics.target if job.metrics else None)),
            ("recovery", _recovery(job.recovery)),
            ("verdict", verdict),
            ("attempt", str(job.attempt) if job.attempt > 1 else None),
            ("submitted", moment(job.created_at)),
            ("finished", moment(job.finished_at) if job.finished_at else None),
            ("metadata", ", ".join(f"{key}={value}" for key, value in job.metadata.items()) or None),
        ]
    )
    if job.metrics is not None:
        print_metrics(job.metrics)


def _left(job: Job) -> str:
    """Return the remaining time of a running job, where it is known."""
    return f", {between(*job.seconds_left)} left" if job.status == "running" and job.seconds_left else ""


def _target(target: Mapping[str, Any] | None, reached: TargetReached | None) -> str | None:
    """Format the requested target and, where it is known, the reached value."""
    if target is None:
        return None
    ((kind, figure),) = ((name, value) for name, value in target.items() if name != "engine")
    place = f" in {target['engine']}" if "engine" in target else ""
    return f"at most {figure:,} {kind}{place}" + (f", reached {reached.reached:,.6g}" if reached else "")


def _recovery(recovery: dict[str, JsonValue] | None) -> str | None:
    return None if recovery is None else f"{recovery.get('method')}, {recovery.get('steps')} steps"


def print_metrics(metrics: Metrics) -> None:
    """Print dense and pruned figures side by side, then the resources of the run."""
    rows = [figure.row for figure in figures(metrics)]
    if rows:
        print_table(("", "dense", "pruned", "ratio"), rows, numbers=(1, 2, 3))
    print_alternatives(metrics.alternatives)
    print_pairs(("at equal bytes", f"on {name} {each.words}") for name, each in metrics.equal_bytes.items())
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


def print_alternatives(alternatives: Sequence[Alternative]) -> None:
    """Print what the dense model takes without pruning, one row for each copy."""
    if alternatives:
        print_table(
            ("without pruning", "bytes", "÷ dense", "quality"),
            [(each.name, size(each.bytes), f"{each.ratio:.2f}", each.words) for each in alternatives],
            numbers=(1, 2),
        )


def moment(time: datetime) -> str:
    """Format a time in the local time zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(time: datetime) -> str:
    """Format the time since a moment, in the largest unit that fits."""
    seconds = max((datetime.now(UTC) - time).total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def answer_to(question: str, default: str) -> str:
    """Return the answer to a question on the terminal. The question is printed on stderr: stdout is for the result."""
    print(f"{question} [{default}]: ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise typer.Abort
    return line.strip() or default
