"""Command `secateur demo`: a job from end to end on a real model and real text, by the API that users have."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.pipeline.messages import ModelPlace
from core.pipeline.stages.generate.spec import GenerateSpec, GenerationOutput
from core.settings import Settings
from secateur import Client, Job
from secateur.cli.watch import follow
from worker.embedded.instance import open_instance
from worker.embedded.serving import serving
from worker.failures import CommandFailed
from worker.runner.client import run_task
from worker.samples.language import CALIBRATION, EVALUATION, MODEL, add_samples

PROMPT = "The capital of France is"
TOKENS = 24

JOB: dict[str, Any] = {
    "model": MODEL,
    "method": "wanda",
    "sparsity": 0.5,
    "calibration": {"dataset": CALIBRATION, "samples": 32, "sequence_length": 512, "seed": 0},
    "evaluation": {"datasets": [EVALUATION], "samples": 32, "sequence_length": 512},
}


class DemoFailed(CommandFailed):
    """Failure of the demo: the server did not start, or the job did not succeed."""


def demo(settings: Settings, console: Console) -> None:
    """Run the demo: serve, prune a sample model, reload the result. Raises DemoFailed.

    Fetched and converted files stay in home for the next time. No process keeps running.
    """
    began = time.monotonic()
    home = settings.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    console.print("[bold]Server[/]")
    with serving(settings, lambda _: None) as url, Client(url, (home / "api-key").read_text().strip()) as client:
        console.print(f"  {url}", highlight=False, soft_wrap=True)
        console.print("[bold]Samples[/]")
        with open_instance(settings) as opened:
            add_samples(opened, lambda text: console.print(f"  {text}", highlight=False, soft_wrap=True))
        console.print("[bold]Job[/]: Wanda, half of the weights")
        job = follow(client, client.submit(**JOB).id)
        if job.status != "succeeded" or job.metrics is None:
            raise DemoFailed(f"The job {job.status}: {job.error.message if job.error else 'no figures'}")
        console.print(_figures(job))
        pruned = home / "demo" / job.id
        client.download(job.id, pruned)
        console.print(f"Downloaded to {pruned}", highlight=False, soft_wrap=True)
    console.print(f"[bold]Reloaded with from_pretrained[/], continuing “{PROMPT}”")
    folders = {"dense": home / "models" / MODEL, "pruned": pruned}
    for name, sentence in _sentences(folders, settings).items():
        console.print(f"  [bold]{name}[/]: {escape(sentence)}", highlight=False, soft_wrap=True)
    console.print(
        f"Done in {time.monotonic() - began:.0f} s; nothing is left running.", highlight=False, soft_wrap=True
    )


def _figures(job: Job) -> Table:
    metrics = job.metrics
    assert metrics is not None and metrics.sparsity and metrics.bytes and metrics.seconds
    table = Table("", "dense", "pruned", title=f"{job.model}, {job.method} {job.sparsity:.0%}", title_justify="left")
    for name, figures in metrics.perplexity.items():
        table.add_row(f"perplexity on {name}", f"{figures.dense:.2f}", f"{figures.pruned:.2f} (× {figures.ratio:.2f})")
    table.add_row("zeros among prunable weights", "", f"{metrics.sparsity.prunable:.2%}")
    table.add_row("zeros among all parameters", "", f"{metrics.sparsity.model:.2%}")
    table.add_row("bytes", f"{metrics.bytes.dense:,}", f"{metrics.bytes.artifact:,}")
    if metrics.latency and metrics.latency.dense_ms and metrics.latency.pruned_ms:
        table.add_row("prefill", f"{metrics.latency.dense_ms:.0f} ms", f"{metrics.latency.pruned_ms:.0f} ms")
    table.add_row("seconds, prune stage", "", f"{metrics.seconds.prune:.1f}")
    table.add_row("seconds, whole job", "", f"{metrics.seconds.total:.1f}")
    table.add_row("peak memory of the prune stage", "", f"{(metrics.peak_memory_bytes or 0) / 2**20:,.0f} MiB")
    return table


def _sentences(folders: dict[str, Path], settings: Settings) -> dict[str, str]:
    """Return the text that each model writes after the prompt, including the prompt."""
    result = run_task(
        GenerateSpec(
            models={name: ModelPlace(path=folder) for name, folder in folders.items()},
            prompts=[PROMPT],
            tokens=TOKENS,
            device=settings.device,
            threads=settings.threads,
        ),
        log=settings.home.resolve() / "logs" / "generate.log",
        on_message=lambda message: None,
        on_wait=lambda: None,
        grace_seconds=settings.cancel_grace_seconds,
    )
    (written,) = GenerationOutput.model_validate(result).generations
    texts = written.document()
    return {name: " ".join(f"{PROMPT}{texts[name] or ''}".split()) for name in folders}
