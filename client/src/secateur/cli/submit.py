"""`secateur submit`: submits a job from options or from a JSON body."""

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from secateur.cli.identifiers import complete_model
from secateur.cli.options import JobOptions, job_body, takes_job_options
from secateur.cli.output import JsonOption, WaitPrinter, answer_to, connect, explain, print_json, say
from secateur.cli.summary import JunitOption, MarkdownOption, SummaryFiles, SummaryOption
from secateur.cli.watch import follow, show_end
from secateur.client import Client
from secateur.errors import InvalidRequest
from secateur.jobs import Job
from secateur.summary import exit_code
from secateur_wire.shown_commands import shell

_MODEL_HELP = "A registered model, org/name[@revision] on the hub, or job:ID for the artifact of a job."
ModelArgument = Annotated[
    str,
    typer.Argument(callback=complete_model, help=_MODEL_HELP),
]
USUAL_METHOD = "frontier"
OWN_TEXT: Final = "self"
"""Name of the text that the model generates."""
OWN_SAMPLES: Final = 32
"""Number of its sequences to calibrate on, where it is suggested."""
MOST_OFFERED: Final = 20
"""Number of datasets from which the suggested calibration sets are chosen."""
USAGE: Final = 2
"""Exit code of a call with a missing option."""
BodyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        allow_dash=True,
        help="A whole job body as JSON, as POST /v1/jobs takes it, in place of everything else; - is standard input.",
    ),
]


@takes_job_options()
def submit(
    job: JobOptions,
    model: Annotated[str | None, typer.Argument(callback=complete_model, help=_MODEL_HELP)] = None,
    body: BodyOption = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Idempotency key. Submitting the same job with the same key again makes no second job."
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Follow the job to its end. The exit code tells how it ended: 0 succeeded, 1 failed, 3 gate missed.",
        ),
    ] = False,
    summary: SummaryOption = None,
    markdown: MarkdownOption = None,
    junit: JunitOption = None,
    only_id: Annotated[bool, typer.Option("--id", help="Print the job's id and nothing else, for scripts.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a job."""
    sent = _body_of_options(model, job) if body is None else _read_body(body, model, job)
    files = SummaryFiles(summary, markdown, junit)
    if files and not wait:
        raise typer.BadParameter("--summary, --markdown and --junit need the job's end: add --wait")
    if only_id and as_json:
        raise typer.BadParameter("--id and --json: give only one of them")
    with connect() as client:
        if "method" not in sent:
            sent["method"] = _usual_method(client, sent["model"])
        submitted = _submitted(client, sent, idempotency_key)
        for each in submitted.warnings:
            explain(f"warning: {each}")
        if only_id:
            print(submitted.id, flush=True)
        if wait:
            ended = follow(client, submitted.id)
            files.write_for(client, ended)
            show_end(ended, as_json, quiet=only_id)
            raise typer.Exit(exit_code(ended))
    if as_json:
        print_json(submitted)
    elif not only_id:
        say(f"{submitted.id} is {submitted.status}. Follow it with: secateur watch {submitted.id}")


def _usual_method(client: Client, model: str) -> str:
    """Return the usual method for a model. Raises typer.BadParameter where the user must choose one."""
    inspection = client.inspect(model, on_wait=WaitPrinter())
    fitting = [fit.method for fit in inspection.methods if fit.fits]
    if USUAL_METHOD not in fitting:
        raise typer.BadParameter(f"name the method with --method; for this model: {', '.join(fitting) or 'none fits'}")
    return USUAL_METHOD


def _submitted(client: Client, body: dict[str, Any], idempotency_key: str | None) -> Job:
    """Submit the job; if its calibration is missing, list the possible ones, or ask on a terminal.

    Without a terminal it prints a command for each, and exits.
    """
    try:
        return client.submit(idempotency_key=idempotency_key, **body)
    except InvalidRequest as error:
        if error.param != "calibration" or body.get("calibration") is not None:
            raise
        reason = error.detail.partition(", for example")[0]
    reads_images = client.inspect(body["model"], on_wait=WaitPrinter()).reads_images
    sets = islice(client.datasets(), MOST_OFFERED)
    names = [each.name for each in sets if (each.images is not None) is reads_images]
    offered = names if reads_images else [*names, OWN_TEXT]
    if offered and sys.stdin.isatty() and sys.stderr.isatty():
        explain(reason)
        chosen = answer_to(f"Calibrate on ({', '.join(offered)})", offered[0])
        calibration = {"dataset": chosen} | ({"samples": OWN_SAMPLES} if chosen == OWN_TEXT else {})
        return client.submit(idempotency_key=idempotency_key, **body, calibration=calibration)
    command = shell("secateur", *sys.argv[1:])
    ways = [
        f"{command} --calibration {name}" + (f" --calibration-samples {OWN_SAMPLES}" if name == OWN_TEXT else "")
        for name in offered
    ]
    added = "secateur datasets add NAME PATH"
    what = "images" if reads_images else "text"
    explain(f"{reason}. Write one of these, or register {what} of yours with `{added}`:")
    for way in ways:
        print(f"  {way}", file=sys.stderr)
    raise typer.Exit(USAGE)


def _body_of_options(model: str | None, job: JobOptions) -> dict[str, Any]:
    """Return the job body of the options. Raises typer.BadParameter for invalid options."""
    if not model:
        raise typer.BadParameter("name the MODEL to prune, or give a whole job with --body FILE")
    return {"model": model, **job_body(job)}


def _read_body(file: Path, model: str | None, job: JobOptions) -> dict[str, Any]:
    """Read a job body from a file. Raises typer.BadParameter for an invalid body, and for additional options."""
    if model or job:
        raise typer.BadParameter("--body gives the whole job: leave the model and the other options out")
    try:
        body = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--body {file}: {error}") from None
    if not isinstance(body, dict) or not {"model", "method"} <= body.keys():
        raise typer.BadParameter(f'--body {file}: write a JSON object such as {{"model": "NAME", "method": "wanda"}}')
    return body
