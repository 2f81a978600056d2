"""`secateur publish` and `publications`: artifacts pushed to the hub or a bucket."""

import os
import sys
from typing import Annotated, Final

import typer

from secateur.cli.credentials import credential, needed_credential
from secateur.cli.identifiers import JobArgument, complete
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
from secateur.client import Client
from secateur_wire.publications import Publication
from secateur_wire.sizes import size

FAILED: Final = 1
INTERRUPTED: Final = 130

PublicationArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=complete("publication"),
        help="The publication, such as pub_01ARZ3NDEKTSV4RRFFQ69G5FAV, or the beginning of its id.",
    ),
]

publications_app = typer.Typer(
    help="Publications of artifacts to the hub or a bucket.", no_args_is_help=True, rich_markup_mode=None
)


def publish(
    job_id: JobArgument,
    to: Annotated[str, typer.Argument(metavar="TO", help="hub:org/name or s3://bucket/prefix.")],
    token_env: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Name of the environment variable with a token of the hub that may write to the repository.",
        ),
    ] = "HF_TOKEN",
    revision: Annotated[
        str | None, typer.Option(help="Branch of the repository. Created if it does not exist.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="If the repository is created, make it public.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    access_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the environment variable with the bucket's access key.")
    ] = "AWS_ACCESS_KEY_ID",
    secret_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the environment variable with the secret key.")
    ] = "AWS_SECRET_ACCESS_KEY",
    session_token_env: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Name of the environment variable with the session token, for temporary keys."
        ),
    ] = "AWS_SESSION_TOKEN",
    region: Annotated[str | None, typer.Option(help="Region of the bucket. Unset: from AWS_REGION.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Address of an S3 service other than Amazon's.")] = None,
    despite_gates: Annotated[
        bool, typer.Option("--despite-gates", help="Publish the artifact even if its job missed a gate.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it has arrived. The exit code is 1 if it does not.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Push a job's artifact, with its card, to a repository of the hub or to a bucket."""
    if to.startswith("s3://"):
        options = {
            "access_key": needed_credential(access_key_env, "--access-key-env"),
            "secret_key": needed_credential(secret_key_env, "--secret-key-env"),
            "session_token": credential(session_token_env),
            "region": region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            "endpoint": endpoint,
        }
        private = None
    else:
        options = {"token": needed_credential(token_env, "--token-env"), "revision": revision, "message": message}
        private = not public
    with connect() as client:
        publication = client.publish(job_id, to, private=private, despite_gates=despite_gates, **options)
        if wait:
            publication = _follow(client, publication)
    _show(publication, as_json)
    if publication.error is not None and publication.finished:
        explain(f"{publication.id} failed: {publication.error.message} ({publication.error.code})")
    if wait and publication.status != "succeeded":
        raise typer.Exit(FAILED)


@publications_app.command("list")
def list_publications(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """List the publications of a job's artifact, newest first."""
    with connect() as client:
        known = list(client.publications(job_id))
    if as_json:
        print_json(known)
    elif not known:
        say("It has not been published yet.")
    else:
        print_table(
            ("publication", "to", "status", "sent", "asked"),
            [(each.id, each.to, each.status, _sent(each), age(each.created_at)) for each in known],
        )


@publications_app.command("show")
def show_publication(publication_id: PublicationArgument, as_json: JsonOption = False) -> None:
    """Show a publication: how far it is, where the artifact is, or what went wrong."""
    with connect() as client:
        publication = client.publication(publication_id)
    _show(publication, as_json)


@publications_app.command("cancel")
def cancel_publication(publication_id: PublicationArgument, as_json: JsonOption = False) -> None:
    """Stop a publication. Files that were sent stay there."""
    with connect() as client:
        stopped = client.cancel_publication(publication_id)
    _show(stopped, as_json)


def _follow(client: Client, publication: Publication) -> Publication:
    """Follow a publication to its end and print its progress on stderr.

    An interrupt leaves it running, prints so and exits.
    """
    printed: list[tuple[str, int]] = []

    def print_progress(publication: Publication) -> None:
        now = (publication.status, publication.progress.files)
        if not publication.finished and (not printed or printed[-1] != now):
            printed.append(now)
            print(f"{publication.status}: {_sent(publication)}", file=sys.stderr)

    try:
        return client.wait_for_publication(publication.id, on_progress=print_progress)
    except KeyboardInterrupt:
        explain(
            f"{publication.id} goes on; see it with `secateur publications show {publication.id}`, end it with "
            f"`secateur publications cancel {publication.id}`"
        )
        raise typer.Exit(INTERRUPTED) from None


def _sent(publication: Publication) -> str:
    progress = publication.progress
    return f"{progress.files} of {progress.files_total} files, {size(progress.bytes)} of {size(progress.bytes_total)}"


def _show(publication: Publication, as_json: bool) -> None:
    if as_json:
        print_json(publication)
        return
    print_pairs(
        [
            ("publication", publication.id),
            ("job", publication.job_id),
            ("to", publication.to + (f", branch {publication.revision}" if publication.revision else "")),
            ("status", publication.status),
            ("sent", _sent(publication)),
            ("is at", None if publication.result is None else publication.result.url),
            ("error", None if publication.error is None else f"{publication.error.message} ({publication.error.code})"),
            ("given up at", None if publication.finished else moment(publication.expires_at)),
        ]
    )
