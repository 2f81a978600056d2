"""`secateur verify`: an artifact is what the installation that made it has signed."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.output import JsonOption, print_json, say
from secateur.configuration import server_url
from secateur.verification import fetch_keys, verify_artifact, verify_file
from secateur_wire.provenance import PROVENANCE
from secateur_wire.sizes import size


def verify(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="Folder of the artifact, or one file of it, such as a GGUF file.")
    ],
    key: Annotated[
        list[Path] | None,
        typer.Option(help="File with a public key that you trust (PEM). Repeatable. Then no server is asked."),
    ] = None,
    statement: Annotated[
        Path | None,
        typer.Option(help=f"The artifact's {PROVENANCE}, to check one file by it. Unset: the one beside the file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the signature of an artifact or a file of it, and that it has exactly the bytes that were signed.

    Without --key the keys are those that the configured server lists. Exit code 1: something is not as it was signed.
    """
    for file in key or []:
        if not file.is_file():
            raise typer.BadParameter(f"--key {file}: there is no such file")
    if statement is not None and artifact.is_dir():
        raise typer.BadParameter("--statement is for one file; a folder has its own")
    keys = [file.read_text() for file in key] if key else fetch_keys(server_url())
    verified = verify_file(artifact, keys, statement) if artifact.is_file() else verify_artifact(artifact, keys)
    predicate = verified.statement.predicate
    recipe, run = predicate.build_definition, predicate.run_details
    if as_json:
        print_json(
            {
                "folder" if artifact.is_dir() else "file": str(artifact.resolve()),
                "verified": True,
                "keyid": verified.keyid,
                "files": verified.files,
                "bytes": verified.bytes,
                "predicate": predicate.model_dump(mode="json"),
            }
        )
        return
    files = "1 file" if verified.files == 1 else f"{verified.files} files"
    say(f"{files}, {size(verified.bytes)}: as signed by key {verified.keyid[:16]}…")
    say(f"Made by {run.metadata.invocation_id} with {', '.join(f'{k} {v}' for k, v in run.builder.version.items())}")
    say(f"Method {recipe.external_parameters.get('method')}, from:")
    for each in recipe.resolved_dependencies:
        say(f"  {each.name}  {' '.join(f'{kind}:{digest}' for kind, digest in each.digest.items())}")
