"""`secateur verify`: an artifact is what the installation that made it has signed."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.output import JsonOption, print_json, say
from secateur.configuration import server_url
from secateur.verification import fetch_keys, verify_artifact
from secateur_wire.sizes import size


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the artifact is.")],
    key: Annotated[
        list[Path] | None,
        typer.Option(help="File with a public key that you trust (PEM). Repeatable. Then no server is asked."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the signature of an artifact, and that it has exactly the files and bytes that were signed.

    Without --key the keys are those that the configured server lists. Exit code 1: something is not as it was signed.
    """
    for file in key or []:
        if not file.is_file():
            raise typer.BadParameter(f"--key {file}: there is no such file")
    verified = verify_artifact(folder, [file.read_text() for file in key] if key else fetch_keys(server_url()))
    predicate = verified.statement.predicate
    recipe, run = predicate.build_definition, predicate.run_details
    if as_json:
        print_json(
            {
                "folder": str(folder.resolve()),
                "verified": True,
                "keyid": verified.keyid,
                "files": verified.files,
                "bytes": verified.bytes,
                "predicate": predicate.model_dump(mode="json"),
            }
        )
        return
    say(f"{verified.files} files, {size(verified.bytes)}: as signed by key {verified.keyid[:16]}…")
    say(f"Made by {run.metadata.invocation_id} with {', '.join(f'{k} {v}' for k, v in run.builder.version.items())}")
    say(f"Method {recipe.external_parameters.get('method')}, from:")
    for each in recipe.resolved_dependencies:
        say(f"  {each.name}  {' '.join(f'{kind}:{digest}' for kind, digest in each.digest.items())}")
