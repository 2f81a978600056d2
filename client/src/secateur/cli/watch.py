"""`secateur watch`: shows a job's progress as bars, and exits with the code for its end."""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Final

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from secateur.cli.identifiers import JobArgument
from secateur.cli.output import JsonOption, Printer, connect, explain, print_job, print_json
from secateur.cli.summary import JunitOption, MarkdownOption, SummaryFiles, SummaryOption
from secateur.client import Client
from secateur.formatting import duration
from secateur.jobs import Job
from secateur.summary import exit_code
from secateur_wire.jobs import JobEvent
from secateur_wire.progress import between

INTERRUPTED: Final = 130

PLAIN_STEP: Final = 0.1
"""Share of the job between two progress lines where stderr is no terminal."""


def watch(
    job_id: JobArgument,
    summary: SummaryOption = None,
    markdown: MarkdownOption = None,
    junit: JunitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a job to its end. The exit code says how it ended: 0 succeeded, 1 failed or cancelled, 3 gate missed."""
    files = SummaryFiles(summary, markdown, junit)
    with connect() as client:
        job = follow(client, job_id)
        files.write_for(client, job)
    show_end(job, as_json)
    raise typer.Exit(exit_code(job))


def follow(client: Client, job_id: str) -> Job:
    """Show progress on stderr until the job has ended, as bars on a terminal and as lines elsewhere; return the job.

    An interrupt leaves the job running, prints so and exits.
    """
    try:
        return show_progress(client, job_id)
    except KeyboardInterrupt:
        explain(f"{job_id} goes on; see it with `secateur watch {job_id}`, end it with `secateur cancel {job_id}`")
        raise typer.Exit(INTERRUPTED) from None


def show_progress(client: Client, job_id: str, *, from_attempt: int = 0) -> Job:
    """Show a job's stages, progress and remaining time until it has ended, as `follow` does, and return it.

    Attempts before `from_attempt` are not shown.
    """
    clock = _Clock(lambda: client.job(job_id))
    if sys.stderr.isatty():
        with _Bars(clock) as bars:
            return client.wait(job_id, on_event=_since(from_attempt, bars.show))
    return client.wait(job_id, on_event=_since(from_attempt, _Lines(clock).show))


def _since(attempt: int, show: Callable[[JobEvent], None]) -> Callable[[JobEvent], None]:
    def show_later(event: JobEvent) -> None:
        if event.attempt >= attempt:
            show(event)

    return show_later


def show_end(job: Job, as_json: bool, *, quiet: bool = False) -> None:
    """Print the ended job on stdout unless `quiet`, and on stderr the reason why it did not succeed."""
    if as_json:
        print_json(job)
    elif not quiet:
        print_job(job)
    if job.error is not None:
        explain(f"{job.id} {job.status}: {job.error.message} ({job.error.code})")
    elif job.status != "succeeded":
        explain(f"{job.id} was {job.status}")


def _blocks(event: JobEvent) -> tuple[int, int] | None:
    block, blocks = event.data.get("block"), event.data.get("blocks")
    return (block, blocks) if isinstance(block, int) and isinstance(blocks, int) and blocks else None


def _unit(stage: str) -> str:
    """Return the unit of the stage's progress."""
    return {"recover": "step", "write": "token"}.get(stage, "block")


def _progress(event: JobEvent) -> float | None:
    value = event.data.get("progress")
    return float(value) if isinstance(value, int | float) else None


def _remark(event: JobEvent) -> str | None:
    """Return the message of an event, if it has one besides progress and stages."""
    if event.type == "log":
        level = event.data.get("level")
        message = str(event.data.get("message", ""))
        return message if level == "info" else f"{level}: {message}"
    if event.type == "status" and event.data.get("status") == "queued" and event.sequence > 1:
        error = event.data.get("error")
        why = f": {error.get('message')}" if isinstance(error, dict) else ""
        return f"attempt {event.attempt} ended, queued again{why}"
    return None


class _Clock:
    """Clock of the current attempt, by the times of its events: the duration of each stage, and the time left.

    The time left is what the newest event of progress says, less the time since.
    """

    def __init__(self, job_now: Callable[[], Job]) -> None:
        self._job_now = job_now
        self._stage: tuple[str, datetime] | None = None
        self._said: tuple[float, float, datetime] | None = None
        self._left: tuple[float, float] | None = None

    def note(self, event: JobEvent) -> str | None:
        """Add an event; return the stage that it ends with its duration, or None."""
        status, ended = event.data.get("status"), None
        if event.type in ("status", "stage") and self._stage is not None:
            stage, began = self._stage
            ended, self._stage = f"{stage}, {duration((event.created_at - began).total_seconds())}", None
        if event.type == "status":
            left = self._job_now().seconds_left if status == "running" else None
            self._said = None if left is None else (left[0], left[1], event.created_at)
        elif event.type == "stage":
            self._stage = str(event.data.get("stage")), event.created_at
        match event.data.get("seconds_left"):
            case [float() | int() as least, float() | int() as most]:
                self._said = least, most, event.created_at
        self._left = None
        if self._said is not None:
            least, most, since = self._said
            past = (event.created_at - since).total_seconds()
            self._left = max(least - past, 0.0), max(most - past, 0.0)
        return ended

    def left(self) -> str:
        """Return the remaining time as text, empty where it is unknown."""
        return "" if self._left is None else f"{between(*self._left)} left"


class _Bars:
    """Two bars: the whole job under the name of its stage, and the blocks or steps of the current stage.

    Above them is a line for each finished stage, with its duration.
    """

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._bars = Progress(
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[blocks]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=Printer(stderr=True),
        )
        self._job = self._bars.add_task("queued", total=1.0, blocks="", left="")
        self._stage = self._bars.add_task("", total=None, visible=False, blocks="", left="")
        self._unit = _unit("")

    def __enter__(self) -> "_Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, event: JobEvent) -> None:
        ended, remark = self._clock.note(event), _remark(event)
        for line in (ended, remark):
            if line is not None:
                self._bars.console.print(line)
        self._bars.update(self._job, left=self._clock.left())
        match event.type:
            case "status":
                status = str(event.data.get("status"))
                self._bars.update(self._job, description=status, visible=True)
                self._bars.update(self._stage, visible=False)
                if status == "queued":
                    self._bars.reset(self._job, description=status)
                elif status == "succeeded":
                    self._bars.update(self._job, completed=1.0)
            case "stage":
                stage = str(event.data.get("stage"))
                self._unit = _unit(stage)
                self._bars.reset(self._stage, description=stage, total=None, visible=False, blocks="", left="")
                self._bars.update(self._job, description=stage)
            case "progress":
                self._bars.update(self._job, completed=_progress(event))
                if (blocks := _blocks(event)) is not None:
                    block, of = blocks
                    self._bars.update(
                        self._stage,
                        description=f"{self._unit}s",
                        completed=block,
                        total=of,
                        visible=True,
                        blocks=f"{block} of {of}",
                    )


class _Lines:
    """A line for each state and stage, and one for every tenth of the progress, with the remaining time."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._shown = 0.0
        self._unit = _unit("")

    def show(self, event: JobEvent) -> None:
        self._clock.note(event)
        line = _remark(event)
        if line is None and event.type in {"status", "stage"}:
            line = str(event.data.get(event.type))
            if event.type == "status":
                self._shown = 0.0
            self._unit = _unit(line)
            line = self._with_time_left(line)
        progress = _progress(event) if event.type == "progress" else None
        if progress is not None and progress >= self._shown + PLAIN_STEP:
            self._shown = progress
            blocks = _blocks(event)
            line = f"{progress:4.0%}" + (f"  {self._unit} {blocks[0]} of {blocks[1]}" if blocks else "")
            line = self._with_time_left(line)
        if line is not None:
            print(f"{event.created_at.astimezone():%H:%M:%S}  {line}", file=sys.stderr, flush=True)

    def _with_time_left(self, line: str) -> str:
        return f"{line}, {left}" if (left := self._clock.left()) else line
