"""`secateur keys`: the API keys of the team. Needs an admin key."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from secateur.cli.identifiers import complete_identifier
from secateur.cli.output import JsonOption, connect, explain, moment, print_json, print_table, say
from secateur_wire.teams import CreatedKey, Key, Role

KeyArgument = Annotated[
    str,
    typer.Argument(metavar="ID", help="The key, such as key_01ARZ3NDEKTSV4RRFFQ69G5FAV, or the beginning of its id."),
]
KeyNameOption = Annotated[str, typer.Option("--name", help="What the key is for.")]
RoleOption = Annotated[
    Role, typer.Option(help="What the key may do: look (viewer), submit (member) or administer (admin).")
]
DaysOption = Annotated[float | None, typer.Option(min=0, help="Days until the key expires. Unset: never.")]

keys_app = typer.Typer(help="The team's API keys.", no_args_is_help=True, rich_markup_mode=None)


@keys_app.command("list")
def list_keys(as_json: JsonOption = False) -> None:
    """List all keys, newest first, without their secret part."""
    with connect() as client:
        known = list(client.keys())
    show_keys(known, as_json)


@keys_app.command("create")
def create_key(
    name: KeyNameOption = "command line",
    role: RoleOption = "member",
    days: DaysOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and print it. It is shown only this time."""
    with connect() as client:
        key = client.create_key(name, role=role, expires_at=expiry(days))
    show_created(key, as_json)


@keys_app.command("rotate")
def rotate_key(
    key_id: KeyArgument,
    grace_hours: Annotated[
        float | None, typer.Option(min=0, help="Hours for which the old key still works. Unset: the server decides.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a key by a new one with the same name and role, and print it. It is shown only this time."""
    with connect() as client:
        key = client.rotate_key(
            complete_identifier("key", key_id), grace_seconds=None if grace_hours is None else grace_hours * 3600
        )
    show_created(key, as_json)


@keys_app.command("revoke")
def revoke_key(key_id: KeyArgument, as_json: JsonOption = False) -> None:
    """End a key for good."""
    with connect() as client:
        revoked = client.revoke_key(complete_identifier("key", key_id))
    show_revoked(revoked, as_json)


def expiry(days: float | None) -> datetime | None:
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


def show_keys(known: list[Key], as_json: bool) -> None:
    """Print keys as a table, or as JSON."""
    if as_json:
        print_json(known)
        return
    print_table(
        ("key", "name", "role", "state", "starts with", "expires", "last used"),
        [
            (key.id, key.name, key.role, key.state, key.prefix, _when(key.expires_at), _when(key.last_used_at))
            for key in known
        ],
    )


def show_created(key: CreatedKey, as_json: bool) -> None:
    """Print the key alone on stdout, for a script to read, and its description on stderr."""
    if as_json:
        print_json(key)
        return
    explain(f"{key.id}, {key.name}, {key.role}; it is shown only this time")
    say(key.key)


def show_revoked(key: Key, as_json: bool) -> None:
    """Print a revoked key."""
    if as_json:
        print_json(key)
    else:
        say(f"{key.id} ({key.name}) is revoked.")


def _when(time: datetime | None) -> str:
    return "–" if time is None else moment(time)
