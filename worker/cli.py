"""The server's commands of the `secateur` command line, which the client finds through the entry-point group
`secateur.commands`. They act on SECATEUR_HOME of this machine, as its first team; no server need be running."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar, cast

import typer
from pydantic import BaseModel
from rich.console import Console

from core.database import transaction
from core.errors import InvalidRequest, SecateurError
from core.settings import Settings
from core.teams.keys import create_key, list_keys, revoke_key
from core.teams.schemas import Role
from core.teams.secret import server_secret
from secateur.cli.output import JsonOption, explain, print_table
from secateur.cli.registry import (
    FormatOption,
    NameArgument,
    SourceOption,
    TextFieldOption,
    add_dataset,
    add_model,
    datasets_app,
    models_app,
    show_dataset,
    show_model,
)
from secateur.configuration import embedded_url
from secateur.types import Dataset, Model
from worker.demo import DemoFailed, demo
from worker.downloads import DownloadFailed
from worker.embedded import PostgresFailed
from worker.home import open_home
from worker.registering import add_dataset as take_in_dataset
from worker.registering import add_model as take_in_model
from worker.samples import add_samples
from worker.serve import ServeFailed, serve, stop

FAILED = 1
USAGE = 2
ROLES = ("viewer", "member", "admin")

Answer = TypeVar("Answer", bound=BaseModel)


def register(app: typer.Typer) -> None:
    """Add the server's commands to the client's. `models add` and `datasets add` replace the client's."""
    app.command("serve")(_serve)
    app.command("stop")(_stop)
    app.command("samples")(_samples)
    app.command("demo")(_demo)
    models_app.command("add")(_models_add)
    datasets_app.command("add")(_datasets_add)
    keys = typer.Typer(help="API keys of this server.", no_args_is_help=True, rich_markup_mode=None)
    keys.command("create")(_keys_create)
    keys.command("list")(_keys_list)
    keys.command("revoke")(_keys_revoke)
    app.add_typer(keys, name="keys")


@contextmanager
def _told() -> Iterator[None]:
    """Errors a user can do something about become a message and an exit code."""
    try:
        yield
    except SecateurError as error:
        where = f" ({error.param})" if error.param else ""
        explain(f"{error.title}{where}: {error.message}")
        raise typer.Exit(USAGE if isinstance(error, InvalidRequest) else FAILED) from error
    except (ServeFailed, PostgresFailed, DownloadFailed, DemoFailed) as error:
        explain(error)
        raise typer.Exit(FAILED) from error


def _serve(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: SECATEUR_PORT, or 8000.")] = None,
    host: Annotated[str | None, typer.Option(help="Default: SECATEUR_HOST, or 127.0.0.1.")] = None,
) -> None:
    """Serve this home: database, API, a worker and the dispatcher, until Ctrl-C."""
    settings = Settings()
    with _told():
        serve(settings, host=host or settings.host, port=settings.port if port is None else port)


def _stop() -> None:
    """End everything that serves this home, the database too."""
    with _told():
        typer.echo("Stopped." if stop(Settings()) else "Nothing was running.")


def _samples() -> None:
    """Fetch a small language model, and text to prune it with, by pinned hash."""
    with _told(), open_home(Settings()) as home:
        add_samples(home, typer.echo)


def _demo() -> None:
    """Prune a real language model end to end and show what came of it."""
    with _told():
        demo(Settings(), Console())


def _models_add(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder with safetensors, or a .gguf file.")],
    source: SourceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a model folder or a GGUF file; for the embedded server it is taken into its home first."""
    if _is_elsewhere():
        add_model(name, str(path), source, as_json)
        return
    with _told(), open_home(Settings()) as home:
        added = take_in_model(home, name, path, source=source, say=explain)
    show_model(_as_client_sees(added, Model), as_json)


def _datasets_add(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .txt, .jsonl or .parquet file.")],
    file_format: FormatOption = None,
    text_field: TextFieldOption = "text",
    source: SourceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a text, JSONL or Parquet file; for the embedded server it is taken into its home first."""
    if _is_elsewhere():
        add_dataset(name, str(path), file_format, text_field, source, as_json)
        return
    with _told(), open_home(Settings()) as home:
        added = take_in_dataset(home, name, path, file_format=file_format, text_field=text_field, source=source)
    show_dataset(_as_client_sees(added, Dataset), as_json)


def _is_elsewhere() -> bool:
    """Whether the environment names a server that is not the one of this home: files cannot be taken in there."""
    return "SECATEUR_URL" in os.environ and os.environ["SECATEUR_URL"].rstrip("/") != embedded_url()


def _as_client_sees(answer: BaseModel, kind: type[Answer]) -> Answer:
    return kind.model_validate(answer.model_dump(mode="json"))


def _keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "command line",
    role: Annotated[str, typer.Option(help="viewer, member or admin.")] = "member",
    days: Annotated[float | None, typer.Option(help="Days until it expires; unset: never.")] = None,
) -> None:
    """Make a key and show it, this once."""
    if role not in ROLES:
        raise typer.BadParameter(f"{role!r} is none of {', '.join(ROLES)}", param_hint="--role")
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with _told(), open_home(Settings()) as home, transaction(home.sessions) as session:
        made = create_key(
            session,
            home.team_id,
            role=cast(Role, role),
            name=name,
            expires_at=expires_at,
            secret=server_secret(home.settings),
        )
    typer.echo(made.key)


def _keys_list() -> None:
    """All keys, without their secret part."""
    with _told(), open_home(Settings()) as home, transaction(home.sessions) as session:
        keys = list_keys(session, home.team_id, limit=200, after=None).data
    print_table(
        ("key", "name", "role", "starts with", "expires", "last used", "revoked"),
        [
            (key.id, key.name, key.role, key.prefix, *map(_day, (key.expires_at, key.last_used_at, key.revoked_at)))
            for key in keys
        ],
    )


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"


def _keys_revoke(key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """End a key for good."""
    with _told(), open_home(Settings()) as home, transaction(home.sessions) as session:
        revoked = revoke_key(session, home.team_id, key_id)
    typer.echo(f"Revoked {revoked.id} ({revoked.name}).")
