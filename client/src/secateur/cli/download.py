"""`secateur download`: an artifact onto this machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from secateur.cli.output import JobArgument, JsonOption, print_json, say, size
from secateur.client import Client
from secateur.types import ArtifactFile


def download(
    job_id: JobArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put the files; made if missing.")],
    as_json: JsonOption = False,
) -> None:
    """Download a job's artifact, verified. What is there already, whole or in part, is not fetched again."""
    here: dict[str, ArtifactFile] = {}
    with (
        Client() as client,
        Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=40),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
            disable=not sys.stderr.isatty(),
        ) as bars,
    ):
        tasks = {file.path: bars.add_task(file.path, total=file.bytes) for file in client.artifacts(job_id)}

        def on_progress(file: ArtifactFile, arrived: int) -> None:
            here[file.path] = file
            if file.path in tasks:
                bars.update(tasks[file.path], completed=arrived)

        client.download(job_id, folder, on_progress)
    if as_json:
        print_json(
            {
                "folder": str(folder.resolve()),
                "files": [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in here.values()],
            }
        )
    else:
        say(f"{len(here)} files, {size(sum(file.bytes for file in here.values()))}, verified, in {folder}")
