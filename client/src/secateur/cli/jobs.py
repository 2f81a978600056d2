"""Commands that show, cancel and retry jobs and show their attempts."""

from itertools import islice
from typing import Annotated

import typer
from pydantic import JsonValue

from secateur.cli.identifiers import JobArgument
from secateur.cli.options import ListingGroup, named_values
from secateur.cli.output import (
    JsonOption,
    age,
    connect,
    explain,
    moment,
    print_job,
    print_json,
    print_metrics,
    print_pairs,
    print_table,
    say,
)
from secateur.formatting import duration, number
from secateur.jobs import Job
from secateur.transport.problems import BY_CODE
from secateur_wire.jobs import JobAttempt, JobSort
from secateur_wire.metrics import Metrics
from secateur_wire.states import JobStatus

jobs_app = typer.Typer(cls=ListingGroup, help="The team's jobs, and the attempts at one.", rich_markup_mode=None)


@jobs_app.callback(invoke_without_command=True)
def jobs(
    context: typer.Context,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs in this state.")] = None,
    method: Annotated[str | None, typer.Option(help="Only jobs of this method.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only jobs with this label. Repeatable.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="Only jobs with a word in id, model, method or labels that begins like this.")
    ] = None,
    sort: Annotated[JobSort, typer.Option(help="In which order.")] = "newest",
    limit: Annotated[int, typer.Option(min=1, help="Largest number to list.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first unless sorted otherwise; `attempts` shows the attempts at one."""
    if context.invoked_subcommand is not None:
        return
    labels = named_values(metadata or [], "--metadata")
    with connect() as client:
        listed = client.jobs(status=status, method=method, model=model, metadata=labels, search=search, sort=sort)
        fetched = list(islice(listed, limit + 1))
    shown = fetched[:limit]
    if as_json:
        print_json(shown)
    elif not shown:
        say("There are no such jobs." if status or method or model or labels or search else "There are no jobs yet.")
    else:
        print_table(
            ("job", "status", "model", "method", "pattern", "sparsity", "submitted"),
            [
                (
                    job.id,
                    _status(job),
                    job.model,
                    job.method,
                    job.pattern,
                    number(job.sparsity),
                    age(job.created_at),
                )
                for job in shown
            ],
            numbers=(5,),
        )
    if len(fetched) > limit:
        explain(f"there are more than {limit}; show them with --limit")


@jobs_app.command("attempts")
def attempts(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Show the attempts at a job: worker, times, how each ended, and how long its stages took."""
    with connect() as client:
        known = list(client.attempts(job_id))
    if as_json:
        print_json(known)
    elif not known:
        say("No worker has tried it yet.")
    else:
        print_table(
            ("attempt", "worker", "started", "took", "ended", "stages"),
            [
                (
                    str(attempt.attempt),
                    attempt.worker_id,
                    moment(attempt.started_at),
                    duration((attempt.ended_at - attempt.started_at).total_seconds()) if attempt.ended_at else "–",
                    _outcome(attempt),
                    ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in (attempt.stages or {}).items()),
                )
                for attempt in known
            ],
            numbers=(3,),
        )


def show(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Show a job: where it stands, what was asked, what came out."""
    with connect() as client:
        job = client.job(job_id)
    _print(job, as_json)


def report(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Show a job's report: the figures, every layer, what was generated, and remarks. With --json all of it."""
    with connect() as client:
        job_report = client.report(job_id)
        verdict = client.job(job_id).verdict if job_report.answers and not as_json else None
    if as_json:
        print_json(job_report)
        return
    if verdict is not None:
        say(f"{verdict.words}: {verdict.reason}\n")
    metrics = (job_report.model_extra or {}).get("metrics")
    if isinstance(metrics, dict):
        print_metrics(Metrics.model_validate(metrics))
    if job_report.layers:
        headers = [name for name, value in job_report.layers[0].items() if not isinstance(value, dict | list)]
        rows = [[_cell(layer.get(name)) for name in headers] for layer in job_report.layers]
        numeric = [index for index, name in enumerate(headers) if isinstance(job_report.layers[0][name], int | float)]
        print_table([name.replace("_", " ") for name in headers], rows, numbers=numeric)
    if job_report.vocabulary is not None:
        say(job_report.vocabulary.words)
    for each in job_report.generations:
        texts = (("prompt", each.prompt), ("dense", each.dense), ("pruned", each.pruned))
        print_pairs(texts)
    for name, answers in job_report.answers.items():
        for answer in answers:
            both = (("dense", answer.dense.text), ("pruned", answer.pruned.text))
            print_pairs([(name, answer.question), *both])
    for note in job_report.notes:
        say(f"Note: {note}")


def cancel(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Ask a job to stop."""
    with connect() as client:
        job = client.cancel(job_id)
    if as_json:
        print_json(job)
    else:
        say(f"{job.id} is {job.status}.")


def retry(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Queue a failed or cancelled job again; it goes on from the last block it finished."""
    with connect() as client:
        job = client.retry(job_id)
    if as_json:
        print_json(job)
    else:
        say(f"{job.id} is {job.status}. Follow it with: secateur watch {job.id}")


def _print(job: Job, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        print_job(job)


def _status(job: Job) -> str:
    if job.status == "running":
        return f"{job.stage or job.status} {job.progress:.0%}"
    return "gate missed" if job.missed_gate else job.status


def _outcome(attempt: JobAttempt) -> str:
    kind = BY_CODE.get(attempt.error_code or "")
    why = f" ({kind.title if kind else attempt.error_code})" if attempt.error_code else ""
    return f"{attempt.outcome or 'running'}{why}"


def _cell(value: JsonValue) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
