"""Keys of this machine's installation: created, listed and revoked without a server, or by a server elsewhere."""

from typing import Annotated

import typer

from secateur.cli.identifiers import only_one
from secateur.cli.keys import (
    DaysOption,
    KeyArgument,
    RoleOption,
    expiry,
    show_created,
    show_keys,
    show_revoked,
)
from secateur.cli.keys import create_key as create_key_there
from secateur.cli.keys import list_keys as list_keys_there
from secateur.cli.keys import revoke_key as revoke_key_there
from secateur.cli.output import JsonOption
from secateur_wire.teams import CreatedKey, Key
from worker.cli.errors import local_instance
from worker.cli.installation import TeamOption, as_client_sees, is_elsewhere, team_id_of


def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "command line",
    role: RoleOption = "member",
    days: DaysOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and print it. It is shown only this time."""
    if team is None and is_elsewhere():
        create_key_there(name, role, days, as_json)
        return
    from core.database import transaction
    from core.service.teams.keys import create_key
    from core.service.teams.server_secret import server_secret

    with local_instance() as instance, transaction(instance.sessions) as session:
        key = create_key(
            session,
            team_id_of(session, instance, team),
            role=role,
            name=name,
            expires_at=expiry(days),
            secret=server_secret(instance.settings),
        )
    show_created(as_client_sees(key, CreatedKey), as_json)


def keys_list(team: TeamOption = None, as_json: JsonOption = False) -> None:
    """List all keys, newest first, without their secret part."""
    if team is None and is_elsewhere():
        list_keys_there(as_json)
        return
    from core.database import transaction
    from core.service.teams.keys import list_keys

    with local_instance() as instance, transaction(instance.sessions) as session:
        keys = list_keys(session, team_id_of(session, instance, team), limit=200, after=None).data
    show_keys([as_client_sees(key, Key) for key in keys], as_json)


def keys_revoke(key_id: KeyArgument, team: TeamOption = None, as_json: JsonOption = False) -> None:
    """End a key for good."""
    if team is None and is_elsewhere():
        revoke_key_there(key_id, as_json)
        return
    from core.database import transaction
    from core.service.identifiers import identifiers
    from core.service.teams.keys import revoke_key
    from core.service.teams.principal import Principal

    with local_instance() as instance, transaction(instance.sessions) as session:
        team_id = team_id_of(session, instance, team)
        matches = identifiers(session, Principal(team_id, "operator", "admin"), "key", key_id)
        revoked = revoke_key(session, team_id, only_one("key", key_id, matches))
    show_revoked(as_client_sees(revoked, Key), as_json)
