"""`secateur download` and `unpack`: an artifact is downloaded, and its weights are restored for other libraries."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from secateur.cli.identifiers import JobArgument
from secateur.cli.output import JsonOption, connect, print_json, say
from secateur.cli.transfer import transfer_bars
from secateur.errors import DownloadError
from secateur_wire.jobs import ArtifactFile
from secateur_wire.sizes import size


def download(
    job_id: JobArgument,
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Folder for the files. Created if missing; unset: named after the job."),
    ] = None,
    unpack: Annotated[
        bool, typer.Option("--unpack", help="Restore a packed artifact to plain safetensors, bit by bit.")
    ] = False,
    format: Annotated[
        str | None, typer.Option(help="Only the files that were added in this form, such as gguf.")
    ] = None,
    type: Annotated[
        list[str] | None, typer.Option(help="Only this type of that form, such as Q8_0. Repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download a job's artifact and verify it. Files or parts that are there already are not fetched again."""
    if type and format is None:
        raise typer.BadParameter("--type needs --format, such as --format gguf")
    if unpack and format is not None:
        raise typer.BadParameter("--unpack restores a whole artifact: leave --format out")
    folder = Path(job_id) if directory is None else directory
    received: dict[str, ArtifactFile] = {}
    with connect() as client, transfer_bars() as bars:
        tasks = {
            file.path: bars.add_task(file.path, total=file.bytes)
            for file in client.artifacts(job_id, format=format, types=type)
        }

        def on_progress(file: ArtifactFile, arrived: int) -> None:
            received[file.path] = file
            if file.path in tasks:
                bars.update(tasks[file.path], completed=arrived)

        client.download(job_id, folder, on_progress, format=format, types=type)
    unpacked = _unpacked(folder) if unpack else []
    if as_json:
        files: list[JsonValue] = [
            {"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in received.values()
        ]
        document: dict[str, JsonValue] = {"folder": str(folder.resolve()), "files": files}
        if unpack:
            document["unpacked"] = [str(path.relative_to(folder)) for path in unpacked]
        print_json(document)
        return
    say(f"{len(received)} files, {size(sum(file.bytes for file in received.values()))}, verified, in {folder}")
    if unpack:
        total = size(sum(path.stat().st_size for path in unpacked))
        say(f"{len(unpacked)} of them unpacked to {total}" if unpacked else "None of them is packed.")


def _unpacked(folder: Path) -> list[Path]:
    # It loads numpy, which no other command needs.
    from secateur_wire.weights.packed import CorruptPackedFile, unpack_folder

    try:
        return unpack_folder(folder)
    except CorruptPackedFile as error:
        raise DownloadError(str(error)) from error


def unpack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the artifact was downloaded to.")],
    as_json: JsonOption = False,
) -> None:
    """Restore the packed weights of a downloaded artifact to plain safetensors, bit by bit. It needs no server."""
    if not folder.is_dir():
        raise typer.BadParameter(f"{folder} is not a folder")
    unpacked = _unpacked(folder)
    if as_json:
        print_json({"folder": str(folder.resolve()), "unpacked": [path.name for path in unpacked]})
        return
    total = size(sum(path.stat().st_size for path in unpacked))
    say(f"{len(unpacked)} files unpacked to {total}" if unpacked else "There is no packed file.")
