"""Command `secateur demo`: a job from end to end on a real model and real text, by the API that users have."""

import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.settings import Settings
from secateur import Client, Job
from secateur.cli.watch import follow
from secateur.metrics_table import Figure, figures
from secateur_wire.metrics import Metrics
from secateur_wire.shown_commands import python_text, shell
from worker.embedded.instance import open_instance, private_home
from worker.embedded.serving import serving
from worker.failures import CommandFailed
from worker.samples.first_job import AMOUNT, PROMPT, first_job
from worker.samples.language import add_samples

BFLOAT16_BYTES = 2
_OPEN = (
    "from transformers import pipeline; "
    'print(pipeline("text-generation", {folder})({prompt}, max_new_tokens=24)[0]["generated_text"])'
)


class DemoFailed(CommandFailed):
    """Failure of the demo: the server did not start, or the job did not succeed."""


def demo(settings: Settings, console: Console) -> None:
    """Run the demo: serve, prune a sample model, download the result, name the next steps. Raises DemoFailed.

    Fetched and converted files stay in home for the next time. No process keeps running.
    """
    began = time.monotonic()
    home = private_home(settings)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say("[bold]Server[/]")
    with serving(settings, lambda _: None) as url, Client(url, (home / "api-key").read_text().strip()) as client:
        say(f"  {url}")
        say("[bold]Samples[/]")
        with open_instance(settings) as opened:
            add_samples(opened, lambda text: say(f"  {escape(text)}"))
        say(f"[bold]Job[/]: whole layers go, {AMOUNT:.0%} of the parameters; the others are fitted again")
        job = follow(client, client.submit(**first_job()).id)
        if job.status != "succeeded" or job.metrics is None:
            raise DemoFailed(f"The job {job.status}: {job.error.message if job.error else 'no figures'}")
        console.print(_table(job, job.metrics))
        for each in client.report(job.id).generations:
            say(f"[bold]{escape(each.prompt)}[/] …")
            for name, written in (("dense", each.dense), ("pruned", each.pruned)):
                say(f"  {name}: {escape(' '.join((written or '').split()))}")
        pruned = home / "demo" / job.id
        client.download(job.id, pruned)
    say(f"Done in {time.monotonic() - began:.0f} s; nothing is left running. What next:")
    for what, command in (
        ("open it", shell("python", "-c", _OPEN.format(folder=python_text(str(pruned)), prompt=python_text(PROMPT)))),
        ("serve it", f"secateur serve    # then its page, with report and files, is /portal/jobs/{job.id}"),
        ("prune your own", "secateur prune path/to/model -o pruned"),
    ):  # fmt: skip
        say(f"  {what + ':':<16}{escape(command)}")


def figures_of(metrics: Metrics) -> Iterator[Figure]:
    """Yield the figures of the demo's job: all that were measured, the bytes of a free copy, and tokens per second."""
    yield from figures(metrics)
    if metrics.parameters is not None and metrics.parameters.dense is not None and metrics.bytes is not None:
        plain = metrics.parameters.dense * BFLOAT16_BYTES
        yield Figure("bytes", "bytes", plain, metrics.bytes.stored, title="size, the dense model in bfloat16 too")
    timed = metrics.latency
    if timed is not None:
        dense, pruned = (1000 / each if each else None for each in (timed.decode_dense_ms, timed.decode_pruned_ms))
        yield Figure("decode", "number", dense, pruned, title="decode, tokens/s", noise=timed.noise)


def _table(job: Job, metrics: Metrics) -> Table:
    title = f"{job.model}, {job.method} {job.sparsity:.0%}"
    table = Table("", "dense", "pruned", "pruned ÷ dense", title=title, title_justify="left")
    for each in figures_of(metrics):
        table.add_row(*each.row)
    return table
