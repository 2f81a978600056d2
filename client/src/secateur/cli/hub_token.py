"""`secateur hub-token`: the token the team's models and datasets are fetched from the hub with. Needs an admin key."""

from typing import Annotated

import typer

from secateur.cli.credentials import needed_credential
from secateur.cli.output import JsonOption, connect, moment, print_json, say
from secateur_wire.teams import HubToken

hub_token_app = typer.Typer(
    help="The token that private and gated models and datasets of the hub are fetched with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@hub_token_app.command("show")
def show_hub_token(as_json: JsonOption = False) -> None:
    """Say whose token is used; no token is shown."""
    with connect() as client:
        hub_token = client.hub_token()
    _show(hub_token, as_json)


@hub_token_app.command("set")
def set_hub_token(
    token_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable with a token of the hub that may read.")
    ] = "HF_TOKEN",
    as_json: JsonOption = False,
) -> None:
    """Set the team's token, in place of the one before."""
    token = needed_credential(token_env, "--token-env")
    with connect() as client:
        hub_token = client.set_hub_token(token)
    _show(hub_token, as_json)


@hub_token_app.command("remove")
def remove_hub_token(as_json: JsonOption = False) -> None:
    """Forget the team's token."""
    with connect() as client:
        hub_token = client.remove_hub_token()
    _show(hub_token, as_json)


def _show(hub_token: HubToken, as_json: bool) -> None:
    if as_json:
        print_json(hub_token)
    elif hub_token.used == "team":
        set_at = "" if hub_token.updated_at is None else f", set {moment(hub_token.updated_at)}"
        say(f"The hub is asked with the team's own token{set_at}.")
    elif hub_token.used == "operator":
        say("The hub is asked with the token of the server's operator; the team has none of its own.")
    else:
        say("The hub is asked without a token: what is private or gated there cannot be pruned.")
