"""`secateur team`, `people`, `workers`, `queues`, `audit` and `hub-token`: quotas, the fleet, and the changes."""

import json
from itertools import islice
from typing import Annotated

import typer

from secateur.cli.credentials import needed_credential
from secateur.cli.identifiers import complete_object
from secateur.cli.output import JsonOption, age, connect, explain, moment, print_json, print_pairs, print_table, say
from secateur_wire.fleet import Worker
from secateur_wire.sizes import size
from secateur_wire.teams import AuditEntry, HubToken


def team(as_json: JsonOption = False) -> None:
    """Show the team: its quotas and what it uses of them."""
    with connect() as client:
        current = client.team()
    if as_json:
        print_json(current)
        return
    quotas, usage = current.quotas, current.usage
    print_pairs([("team", current.name), ("id", current.id), ("share of queues", f"{current.weight:g}")])
    print_table(
        ("", "used", "of"),
        [
            ("running jobs", str(usage.running), _limit(quotas.max_running)),
            ("waiting jobs", str(usage.queued), _limit(quotas.max_queued)),
            (
                f"device hours since {usage.month_started_at:%Y-%m-%d}",
                f"{usage.device_seconds / 3600:.1f}",
                "no limit" if quotas.max_device_seconds is None else f"{quotas.max_device_seconds / 3600:.1f}",
            ),
            (
                "stored",
                size(usage.stored_bytes),
                "no limit" if quotas.max_stored_bytes is None else size(quotas.max_stored_bytes),
            ),
        ],
        numbers=(1, 2),
    )


def people(as_json: JsonOption = False) -> None:
    """List the people who sign in to the team, with their roles and last sign-ins. Needs an admin key."""
    with connect() as client:
        known = list(client.people())
    if as_json:
        print_json(known)
    elif not known:
        say("Nobody has signed in with an account of an identity provider.")
    else:
        print_table(
            ("person", "name", "e-mail", "role", "last sign-in"),
            [(each.id, each.name, each.email or "", each.role, moment(each.signed_in_at)) for each in known],
        )


def workers(as_json: JsonOption = False) -> None:
    """List the workers that gave a sign of life lately."""
    with connect() as client:
        known = list(client.workers())
    if as_json:
        print_json(known)
    elif not known:
        say("No worker is alive: jobs wait.")
    else:
        print_table(
            ("worker", "queue", "state", "device", "memory", "disk free", "job", "last seen"),
            [
                (
                    worker.id,
                    worker.queue,
                    worker.state + (f": {worker.reason}" if worker.reason else ""),
                    _device(worker),
                    size(worker.memory_bytes),
                    size(worker.disk_free_bytes),
                    worker.job_id or "",
                    age(worker.heartbeat_at),
                )
                for worker in known
            ],
            numbers=(4, 5),
        )


def queues(as_json: JsonOption = False) -> None:
    """List the queues: what waits in each, and what runs."""
    with connect() as client:
        known = list(client.queues())
    if as_json:
        print_json(known)
    elif not known:
        say("No job waits, and no worker serves a queue.")
    else:
        print_table(
            ("queue", "waiting", "oldest", "running"),
            [
                (each.name, str(each.queued), f"{each.oldest_seconds:.0f} s" if each.queued else "", str(each.running))
                for each in known
            ],
            numbers=(1, 2, 3),
        )


def audit(
    action: Annotated[str | None, typer.Option(help="Only this kind of change, for example key.rotate.")] = None,
    object_id: Annotated[
        str | None, typer.Option("--object", callback=complete_object, help="Only changes to the object with this id.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number to list.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the changes made in the team, newest first. Needs an admin key."""
    with connect() as client:
        fetched = list(islice(client.audit(action=action, object_id=object_id), limit + 1))
    shown = fetched[:limit]
    if as_json:
        print_json(shown)
    elif not shown:
        say("There are no such changes.")
    else:
        print_table(
            ("when", "what", "to", "by", "from", "details"),
            [
                (
                    moment(entry.created_at),
                    entry.action,
                    entry.object_id,
                    "the server's operator" if entry.actor == "operator" else entry.actor.removeprefix("key:"),
                    entry.address or "",
                    _details(entry),
                )
                for entry in shown
            ],
        )
    if len(fetched) > limit:
        explain(f"there are more than {limit}; show them with --limit")


def _limit(value: int | None) -> str:
    return "no limit" if value is None else str(value)


def _device(worker: Worker) -> str:
    memory = f", {size(worker.device_memory_bytes)}" if worker.device_memory_bytes is not None else ""
    number = f" {worker.device_id}" if worker.device_id is not None else ""
    return f"{worker.device_name or worker.device}{number}{memory}"


def _details(entry: AuditEntry) -> str:
    return ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in entry.details.items()
    )


hub_token_app = typer.Typer(
    help="The token that private and gated models and datasets of the hub are fetched with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@hub_token_app.command("show")
def show_hub_token(as_json: JsonOption = False) -> None:
    """Show whose token is used. The token itself is not shown."""
    with connect() as client:
        hub_token = client.hub_token()
    _show_hub_token(hub_token, as_json)


@hub_token_app.command("set")
def set_hub_token(
    token_env: Annotated[
        str,
        typer.Option(metavar="NAME", help="Name of the environment variable with a token of the hub that may read."),
    ] = "HF_TOKEN",
    as_json: JsonOption = False,
) -> None:
    """Set the team's token, and replace the earlier one."""
    token = needed_credential(token_env, "--token-env")
    with connect() as client:
        hub_token = client.set_hub_token(token)
    _show_hub_token(hub_token, as_json)


@hub_token_app.command("remove")
def remove_hub_token(as_json: JsonOption = False) -> None:
    """Remove the team's token."""
    with connect() as client:
        hub_token = client.remove_hub_token()
    _show_hub_token(hub_token, as_json)


def _show_hub_token(hub_token: HubToken, as_json: bool) -> None:
    if as_json:
        print_json(hub_token)
    elif hub_token.used == "team":
        set_at = "" if hub_token.updated_at is None else f", set {moment(hub_token.updated_at)}"
        say(f"The hub is asked with the team's own token{set_at}.")
    elif hub_token.used == "operator":
        say("The hub is read with the server operator's token; the team has none.")
    else:
        say("The hub is read without a token: private and gated models cannot be pruned.")
