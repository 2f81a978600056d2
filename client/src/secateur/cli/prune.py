"""`secateur prune`: makes a model smaller with one command; after an interruption the same command continues."""

import contextlib
import errno
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer

from secateur.cli.identifiers import complete_model
from secateur.cli.local_files import Importer, import_local_files, local_model, local_text, upload_model, upload_text
from secateur.cli.options import with_options
from secateur.cli.output import JsonOption, WaitPrinter, connect, explain, print_json, print_metrics, print_pairs, say
from secateur.cli.plan import GOAL_HELP, KeepQualityOption, PlanPatternOption, print_plan
from secateur.cli.transfer import transfer_bars
from secateur.cli.unfinished import RECORD, OutputFolder, PruneRequest, output_folder
from secateur.cli.watch import INTERRUPTED, show_end, show_progress
from secateur.client import Client
from secateur.errors import ApiError, DownloadError, NotFound, SecateurError
from secateur.jobs import Job
from secateur.operations.calls import new_key
from secateur.summary import exit_code
from secateur_wire.jobs import ArtifactFile
from secateur_wire.plans import Goal
from secateur_wire.shown_commands import shell
from secateur_wire.sizes import size

SERVER_ERROR: Final = 500
"""Lowest HTTP status after which it is unknown whether the server executed the request; lower ones refuse it."""
STOP_SECONDS: Final = 60
"""Longest wait until the worker releases a cancelled job."""


@dataclass(frozen=True)
class PruneOptions:
    """Options for the result, and for its place."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            callback=complete_model,
            help="A model folder or .gguf file of this machine, a registered model, org/name[@revision] on the hub, or "
            "job:ID.",
        ),
    ]
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder for the pruned model. Created if missing.")
    ]
    goal: Annotated[Goal, typer.Option("--for", help=GOAL_HELP)] = "speed"
    amount: Annotated[
        float | None,
        typer.Option(
            help="Share to remove, 0 to below 1. Unset: as much as is expected to keep the model close to the dense "
            "one, which is the model before pruning."
        ),
    ] = None
    keep_quality: KeepQualityOption = None
    pattern: PlanPatternOption = None
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The text to calibrate on: a registered one, or a .txt, .jsonl or .parquet file of this machine. "
            "Unset: a registered one, else text that the model writes itself.",
        ),
    ] = None

    def request(self, server: str) -> PruneRequest:
        """Return the request, with absolute paths for files of this machine.

        Raises typer.BadParameter for invalid options, before any server is asked.
        """
        if self.amount is not None and self.keep_quality is not None:
            raise typer.BadParameter("give --amount or --keep-quality, not both: each decides how much is removed")
        model, text = local_model(self.model), local_text(self.calibration)
        return PruneRequest(
            server=server,
            model=self.model if model is None else str(model),
            goal=self.goal,
            amount=self.amount,
            keep_quality=self.keep_quality,
            pattern=self.pattern,
            calibration=self.calibration if text is None else str(text),
        )


@with_options
def prune(options: PruneOptions, as_json: JsonOption = False) -> None:
    """Make a model smaller: plan, prune, measure, download. If interrupted, run the same command to go on.

    Where no server is configured, and the server is installed here, it is started for as long as this takes.
    """
    with connect() as client, output_folder(options.output, options.request(client.url)) as folder:
        run(client, folder, Importer(upload_model, upload_text, lambda client, name: None), as_json)


def run(client: Client, folder: OutputFolder, importer: Importer, as_json: bool) -> None:
    """Run the request in the folder, or continue it, and print the result.

    Exits with the exit code of the job. Ctrl-C cancels the job; finished steps are kept.
    """
    try:
        with _terminations_as_interrupts():
            job = _ended_job(client, folder, importer, show_plan=not as_json)
            files = _download(client, job, folder) if job.status == "succeeded" else []
    except KeyboardInterrupt:
        _stop(client, folder)
        raise typer.Exit(INTERRUPTED) from None
    except Exception:
        if folder.unfinished.body is None:
            folder.forget()
        else:
            explain("nothing is lost: run the same command to go on")
        raise
    _show(client, job, folder, files, as_json)
    if job.status == "succeeded" or job.needs_change:
        folder.forget()
    raise typer.Exit(exit_code(job))


def _ended_job(client: Client, folder: OutputFolder, importer: Importer, *, show_plan: bool) -> Job:
    """Return the ended job of the command: planned and submitted now, or continued from an earlier run."""
    left = folder.unfinished.job
    job = None if left is None else _resumed_job(client, folder, left)
    from_attempt = 0
    if job is None:
        job = _submit(client, folder, importer, show_plan=show_plan)
    elif not job.finished:
        from_attempt = job.attempt if job.status == "running" else job.attempt + 1
    if job.waiting_reason is not None:
        explain(f"it waits: {job.waiting_reason}")
    return job if job.finished else show_progress(client, job.id, from_attempt=from_attempt)


def _resumed_job(client: Client, folder: OutputFolder, job_id: str) -> Job | None:
    """Return the job of an interrupted command, retried if it was stopped; None if it is gone."""
    try:
        job = client.job(job_id)
        if job.status == "cancelling":
            job = client.wait(job_id)
    except NotFound:
        explain(f"{job_id} is gone from the server; beginning anew")
        folder.note(key=new_key(), job=None, body=None)
        return None
    explain(f"going on with {job.id}, which is {job.status}")
    if job.status == "cancelled" or (job.status == "failed" and not job.needs_change):
        job = client.retry(job_id)
    return job


def _submit(client: Client, folder: OutputFolder, importer: Importer, *, show_plan: bool) -> Job:
    was_sent = folder.unfinished.body is not None
    if not was_sent:
        import_local_files(client, folder, importer)
        request = folder.unfinished.request
        planned = client.plan(
            folder.unfinished.model or request.model,
            request.goal,
            amount=request.amount,
            keep_quality=request.keep_quality,
            pattern=request.pattern,
            dataset=folder.unfinished.calibration or request.calibration,
            on_wait=WaitPrinter(),
        )
        if show_plan:
            print_plan(planned)
        else:
            explain(planned.summary)
        folder.note(body=planned.job)
    assert folder.unfinished.body is not None
    body: dict[str, Any] = {**folder.unfinished.body}
    with _uninterrupted():
        try:
            job = client.submit(idempotency_key=folder.unfinished.key, **body)
        except ApiError as error:
            # The key stays if the server may have accepted the job, now or from an earlier command.
            if error.status < SERVER_ERROR and not error.repeated and not was_sent:
                folder.note(body=None)
            raise
        folder.note(job=job.id)
    explain(f"submitted as {job.id}")
    return job


def _download(client: Client, job: Job, folder: OutputFolder) -> list[ArtifactFile]:
    """Download the artifact into the folder; files and parts that are there already are not fetched again.

    Raises DownloadError where the disk is too small.
    """
    files = client.artifacts(job.id)
    missing = sum(file.bytes for file in files) - _bytes_in(folder.path)
    free = shutil.disk_usage(folder.path).free
    if missing > free:
        raise DownloadError(f"{folder.path}: {size(missing)} are to come, and {size(free)} are free on its disk")
    with transfer_bars() as bars:
        tasks = {file.path: bars.add_task(file.path, total=file.bytes) for file in files}
        try:
            client.download(job.id, folder.path, lambda file, here: bars.update(tasks[file.path], completed=here))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise DownloadError(f"{folder.path}: its disk is full; what has arrived stays there") from error
            raise
    return files


def _bytes_in(folder: Path) -> int:
    """Return the number of the artifact's bytes that have arrived, without the record of the command."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != RECORD)


def _stop(client: Client, folder: OutputFolder) -> None:
    """Cancel the running job, and print how to continue."""
    job_id = folder.unfinished.job
    if folder.unfinished.body is None:
        folder.forget()
        explain("stopped; nothing was submitted")
        return
    if job_id is None:
        explain("stopped; it is not known whether the job was submitted; if so, the same command goes on with it")
        return
    with contextlib.suppress(KeyboardInterrupt, SecateurError):
        job = client.job(job_id)
        if not job.finished:
            explain(f"cancelling {job_id}; it keeps the blocks it has finished")
            client.cancel(job_id)
            client.wait(job_id)
    explain("stopped; run the same command to go on")


def _show(client: Client, job: Job, folder: OutputFolder, files: list[ArtifactFile], as_json: bool) -> None:
    """Print the result of the job: figures, verdict, the place of the model, and commands that run it."""
    ways = client.ways_to_run(job.id, folder.path) if files else []
    if as_json:
        print_json(
            {
                "job": job.model_dump(mode="json", exclude_unset=True),
                "folder": str(folder.path.resolve()) if files else None,
                "ways_to_run": [way.model_dump(mode="json") for way in ways],
            }
        )
    elif job.status == "succeeded":
        if job.metrics is not None:
            print_metrics(job.metrics)
        total = size(sum(file.bytes for file in files))
        verdict = f"{job.verdict.words}: {job.verdict.reason}" if job.verdict else None
        print_pairs([("verdict", verdict), ("folder", f"{folder.path}, {len(files)} files, {total}")])
        for way in ways:
            say(f"\n{way.runtime} (pip install {' '.join(way.packages)}): {way.about}\n\n{way.commands}")
    else:
        show_end(job, as_json)
    if job.missed_gate:
        explain(f"not downloaded; `{shell('secateur', 'download', job.id, folder.path)}` takes it all the same")
    elif job.needs_change:
        explain("the same command would fail again: change its options, the model or the text")
    elif job.status == "failed":
        explain("run the same command to try again from the last finished block")


@contextlib.contextmanager
def _terminations_as_interrupts() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal like Ctrl-C, so that they cancel the job."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay one Ctrl-C until the body has ended, so that every submitted job is recorded."""
    arrived: list[int] = []

    def delay(number: int, frame: FrameType | None) -> None:
        if arrived:
            raise KeyboardInterrupt
        arrived.append(number)

    before = {number: signal.signal(number, delay) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        raise KeyboardInterrupt
