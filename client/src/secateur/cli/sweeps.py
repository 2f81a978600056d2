"""`secateur sweep` and `secateur sweeps`: starts, shows, cancels and resumes many jobs on one model."""

import json
import sys
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer
from pydantic import JsonValue

from secateur.cli.identifiers import complete, complete_model
from secateur.cli.options import JobOptions, job_body, takes_job_options
from secateur.cli.output import (
    JsonOption,
    age,
    connect,
    explain,
    moment,
    print_json,
    print_pairs,
    print_table,
    say,
)
from secateur.cli.watch import INTERRUPTED
from secateur.client import Client
from secateur.formatting import count, number
from secateur.summary import EXIT_CODES
from secateur_wire.states import SweepStatus
from secateur_wire.sweeps import Cost, SearchObjective, Sweep, SweepPoint, SweepResults

sweep_app = typer.Typer(
    help="Many jobs on one model: a grid, or a search.", no_args_is_help=True, rich_markup_mode=None
)
SweepArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=complete("sweep"),
        help="The sweep, such as swp_01ARZ3NDEKTSV4RRFFQ69G5FAV, or the beginning of its id.",
    ),
]
CONSTRAINTS_NOT_MET: Final = "constraints_not_met"


@dataclass(frozen=True)
class SweepOptions:
    """A sweep from options. A field that is None gets the server's default."""

    job: JobOptions
    model: str | None = None
    methods: list[str] = field(default_factory=list)
    sparsities: list[float] = field(default_factory=list)
    grid: list[str] = field(default_factory=list)
    search: str | None = None
    subject_to: list[str] = field(default_factory=list)
    probe_samples: int | None = None
    max_jobs: int | None = None
    name: str | None = None
    max_concurrent: int | None = None
    skip_invalid: bool = False

    def body(self) -> dict[str, Any]:
        """Return the sweep's body. Raises typer.BadParameter for options that make an invalid body."""
        if not self.model:
            raise typer.BadParameter("name the model with --model, or give a whole sweep as FILE")
        if not self.methods:
            raise typer.BadParameter("name a method with --method; `secateur methods` lists them")
        body: dict[str, Any] = {"job": {"model": self.model, **job_body(self.job)}} | self._what_varies()
        for name in ("name", "max_concurrent"):
            if getattr(self, name) is not None:
                body[name] = getattr(self, name)
        return body | ({"skip_invalid": True} if self.skip_invalid else {})

    def _what_varies(self) -> dict[str, Any]:
        if self.search is None:
            if self.subject_to or self.probe_samples is not None or self.max_jobs is not None:
                raise typer.BadParameter("--subject-to, --probe-samples and --max-jobs need --search OBJECTIVE")
            grid: dict[str, Any] = {"method": self.methods}
            if self.sparsities:
                grid["sparsity"] = self.sparsities
            return {"grid": grid | dict(_axis(text) for text in self.grid)}
        if self.grid:
            raise typer.BadParameter("--grid: a search chooses its own points; set one value in a FILE instead")
        search: dict[str, Any] = {
            "objective": self.search,
            "subject_to": dict(_limit(text) for text in self.subject_to),
            "methods": self.methods,
        }
        if self.sparsities:
            search["sparsities"] = self.sparsities
        if self.max_jobs is not None:
            search["max_jobs"] = self.max_jobs
        if self.probe_samples is not None:
            search["probe"] = {"samples": self.probe_samples}
        return {"search": search}


@sweep_app.command("run")
@takes_job_options("calibration", "evaluation", "running")
def run(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            allow_dash=True,
            help="A whole sweep as JSON, as POST /v1/sweeps takes it, in place of all options; - is standard input.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(callback=complete_model, help="A registered model, org/name[@revision] on the hub, or job:ID."),
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="A method. Repeatable.")] = None,
    sparsity: Annotated[list[float] | None, typer.Option(help="A sparsity. Repeatable.")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=LIST",
            help="Values for any other field of the job, as JSON: parameters.block_size=[64, 128]. Repeatable.",
        ),
    ] = None,
    *,
    job: JobOptions,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="OBJECTIVE",
            help="Search for the cheapest model that keeps --subject-to, in place of running all: "
            f"{', '.join(get_args(SearchObjective))}.",
        ),
    ] = None,
    subject_to: Annotated[
        list[str] | None,
        typer.Option(metavar="LIMIT=VALUE", help="Limit for a search: max_perplexity_ratio=1.1. Repeatable."),
    ] = None,
    probe_samples: Annotated[
        int | None,
        typer.Option(min=1, help="For a search: use this many samples, and measure only the winner with all."),
    ] = None,
    max_jobs: Annotated[int | None, typer.Option(min=1, help="For a search: largest number of jobs.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep.")] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Largest number of jobs queued or running at a time.")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out points that are not valid jobs.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended, then show the results.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a sweep: every combination of methods, sparsities and more, or a search among them.

    With --wait the exit code says how it ended: 0 succeeded, 1 failed or cancelled, 3 no model is within the limits.
    """
    options = SweepOptions(
        job=job,
        model=model,
        methods=method or [],
        sparsities=sparsity or [],
        grid=grid or [],
        search=search,
        subject_to=subject_to or [],
        probe_samples=probe_samples,
        max_jobs=max_jobs,
        name=name,
        max_concurrent=max_concurrent,
        skip_invalid=skip_invalid,
    )
    body = options.body() if file is None else _read_body(file, options)
    with connect() as client:
        sweep = client.submit_sweep(**body)
        if wait:
            _wait(client, sweep, as_json)
    if as_json:
        print_json(sweep)
    else:
        say(f"{sweep.id} is {sweep.status}, {sweep.points.total} points. See it with: secateur sweep show {sweep.id}")


@sweep_app.command("show")
def show(
    sweep_id: SweepArgument,
    quality: Annotated[
        str | None,
        typer.Option(
            help="Quality that the best points are chosen by: perplexity:SET, bits_per_byte:SET, accuracy:SET or "
            "accuracy:TASK."
        ),
    ] = None,
    cost: Annotated[Cost, typer.Option(help="For the front.")] = "parameters",
    as_json: JsonOption = False,
) -> None:
    """Show a sweep: its points, the best ones, the best by each objective, and what a search found."""
    with connect() as client:
        _print(client.sweep_results(sweep_id, quality=quality, cost=cost), as_json)


@sweep_app.command("cancel")
def cancel(sweep_id: SweepArgument, as_json: JsonOption = False) -> None:
    """Stop a sweep: start no more jobs, and cancel those that wait or run."""
    with connect() as client:
        _print_state(client.cancel_sweep(sweep_id), as_json)


@sweep_app.command("resume")
def resume(sweep_id: SweepArgument, as_json: JsonOption = False) -> None:
    """Go on with a cancelled or failed sweep."""
    with connect() as client:
        _print_state(client.resume_sweep(sweep_id), as_json)


def sweeps(
    status: Annotated[SweepStatus | None, typer.Option(help="Only sweeps in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number to list.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List sweeps, newest first."""
    with connect() as client:
        fetched = list(islice(client.sweeps(status=status), limit + 1))
    shown = fetched[:limit]
    if as_json:
        print_json(shown)
    elif not shown:
        say("There are no such sweeps." if status else "There are no sweeps yet.")
    else:
        print_table(
            ("sweep", "status", "kind", "model", "points", "name", "submitted"),
            [
                (each.id, each.status, each.kind, each.model, _progress(each), each.name or "", age(each.created_at))
                for each in shown
            ],
            numbers=(4,),
        )
    if len(fetched) > limit:
        explain(f"there are more than {limit}; show them with --limit")


def _wait(client: Client, sweep: Sweep, as_json: bool) -> None:
    def tell(now: Sweep) -> None:
        explain(f"{now.id} {now.status}: {_progress(now)}" + (f"; {now.waiting_for}" if now.waiting_for else ""))

    try:
        ended = client.wait_sweep(sweep.id, on_change=tell)
    except KeyboardInterrupt:
        explain(f"{sweep.id} goes on; see it with `secateur sweep show {sweep.id}`")
        raise typer.Exit(INTERRUPTED) from None
    _print(client.sweep_results(sweep.id), as_json)
    is_missed = ended.error is not None and ended.error.code == CONSTRAINTS_NOT_MET
    raise typer.Exit(EXIT_CODES["passed" if ended.status == "succeeded" else "gate_missed" if is_missed else "failed"])


def _progress(sweep: Sweep) -> str:
    """Format the number of ended points; a search need not run most of its points."""
    points = sweep.points
    ended = points.succeeded + points.failed + points.cancelled
    return f"{ended} of {points.total}" + (f", {points.failed} failed" if points.failed else "")


def _print_state(sweep: Sweep, as_json: bool) -> None:
    if as_json:
        print_json(sweep)
    else:
        say(f"{sweep.id} is {sweep.status}.")


def _print(results: SweepResults, as_json: bool) -> None:
    if as_json:
        print_json(results)
        return
    sweep = results.sweep
    print_pairs(
        [
            ("sweep", sweep.id),
            ("name", sweep.name),
            ("status", sweep.status),
            ("error", f"{sweep.error.message} ({sweep.error.code})" if sweep.error else None),
            ("waits for", sweep.waiting_for),
            ("model", sweep.model),
            ("points", _progress(sweep)),
            ("submitted", moment(sweep.created_at)),
            ("finished", moment(sweep.finished_at) if sweep.finished_at else None),
        ]
    )
    best: dict[int, list[str]] = {each.number: [] for each in results.best}
    for each in results.best:
        best[each.number].append(each.objective)
    run = [point for point in results.points if point.status not in ("waiting", "not_run")]
    if run:
        print_table(
            (
                *(
                    "job",
                    "point",
                    "status",
                    "perplexity",
                    "ratio",
                    "KL of answers",
                    "accuracy",
                    "parameters",
                    "latency",
                ),
                *("front", "best"),
            ),
            [_row(point, best.get(point.number, [])) for point in run],
            numbers=(3, 4, 5, 6, 7, 8),
        )
    if results.search is not None:
        say(f"{results.search.message} Jobs run: {results.search.jobs} of {results.search.candidates} points.")


def _row(point: SweepPoint, best: list[str]) -> tuple[str, ...]:
    figures = point.figures
    measured = (
        ("–",) * 6
        if figures is None
        else (
            number(figures.perplexity),
            number(figures.perplexity_ratio),
            number(figures.answer_kl),
            number(figures.accuracy),
            count(None if figures.parameters is None else round(figures.parameters)),
            "–" if figures.latency_ms is None else f"{figures.latency_ms:.1f} ms",
        )
    )
    status = f"{point.status}: {point.error.code}" if point.error else point.status
    return (point.job or "–", point.label, status, *measured, "*" if point.on_front else "", ", ".join(best))


def _read_body(file: Path, options: SweepOptions) -> dict[str, Any]:
    if options != SweepOptions(job={}):
        raise typer.BadParameter("FILE gives the whole sweep: leave the options out")
    try:
        body: JsonValue = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file}: {error}") from None
    if not isinstance(body, dict) or "job" not in body:
        raise typer.BadParameter(f'{file}: write a JSON object such as {{"job": {{"model": "NAME"}}, "grid": {{…}}}}')
    return body


def _axis(text: str) -> tuple[str, list[JsonValue]]:
    path, separator, written = text.partition("=")
    try:
        values: JsonValue = json.loads(written) if separator and path else None
    except ValueError:
        values = None
    if not isinstance(values, list) or not values:
        raise typer.BadParameter(f"--grid {text!r}: write PATH=LIST, such as parameters.block_size=[64, 128]")
    return path, values


def _limit(text: str) -> tuple[str, float]:
    name, separator, written = text.partition("=")
    try:
        return name, float(written if separator else "")
    except ValueError:
        raise typer.BadParameter(
            f"--subject-to {text!r}: write LIMIT=VALUE, such as max_perplexity_ratio=1.1"
        ) from None
