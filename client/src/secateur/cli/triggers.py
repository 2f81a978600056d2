"""`secateur triggers`: templates of jobs that a pipeline, the hub or a schedule fires."""

import json
import sys
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from secateur.cli.identifiers import complete
from secateur.cli.output import JsonOption, connect, explain, moment, print_json, print_pairs, print_table, say
from secateur_wire.triggers import Firing, IssuedTrigger, Trigger

TriggerArgument = Annotated[
    str,
    typer.Argument(
        metavar="TRIGGER",
        callback=complete("trigger", is_name_too=True),
        help="A trigger by name, id, or the beginning of its id.",
    ),
]
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help='JSON: {"name": …, "template": {…}, …}; - reads stdin.', allow_dash=True)
]
PayloadOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The payload, a JSON object; - reads stdin; unset: {}.", allow_dash=True),
]


class _Secret(Enum):
    """`TriggerSecret` as an enum, which an option with several values needs."""

    URL: Final = "url"
    SIGNING: Final = "signing"
    HUB: Final = "hub"


triggers_app = typer.Typer(
    help="Job templates that a pipeline, a commit on the hub or the clock fires.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@triggers_app.command("list")
def list_triggers(as_json: JsonOption = False) -> None:
    """List the team's triggers, newest first."""
    with connect() as client:
        known = list(client.triggers())
    if as_json:
        print_json(known)
        return
    print_table(
        ("trigger", "id", "state", "fires", "next"),
        [(each.name, each.id, _state(each), _sources(each), _when(each)) for each in known],
    )


@triggers_app.command("show")
def show_trigger(trigger: TriggerArgument, as_json: JsonOption = False) -> None:
    """Show a trigger and its template."""
    with connect() as client:
        shown = client.trigger(trigger)
    if as_json:
        print_json(shown)
        return
    print_pairs(
        [
            ("trigger", shown.name),
            ("id", shown.id),
            ("about", shown.description or None),
            ("state", _state(shown)),
            ("why", shown.disabled_reason),
            ("fires", _sources(shown)),
            ("next", _when(shown)),
            ("event id", shown.event_id),
        ]
    )
    say(json.dumps({"template": shown.template, "placeholders": _declared(shown)}, indent=2, ensure_ascii=False))


@triggers_app.command("create")
def create_trigger(file: FileArgument, as_json: JsonOption = False) -> None:
    """Create a trigger from a JSON file and print its URL and secrets. They are shown only this time."""
    definition = _read_object(file, "FILE")
    missing = {"name", "template"} - definition.keys()
    if missing:
        raise typer.BadParameter(f"{file}: {', '.join(sorted(missing))} missing")
    with connect() as client:
        issued = client.create_trigger(**definition)
    _show_issued(issued, as_json)


@triggers_app.command("update")
def update_trigger(
    trigger: TriggerArgument,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The fields to change, as a JSON object. null removes a field.", allow_dash=True
        ),
    ] = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Allow the trigger to fire, or not.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Change a trigger."""
    changes = {} if file is None else _read_object(file, "--file")
    if enable is not None:
        changes["enabled"] = enable
    if not changes:
        raise typer.BadParameter("give a change: --enable, --disable or --file FILE")
    with connect() as client:
        changed = client.update_trigger(trigger, **changes)
    _show_issued(changed, as_json)


@triggers_app.command("rotate")
def rotate_trigger(
    trigger: TriggerArgument,
    secret: Annotated[
        list[_Secret] | None, typer.Option(help="url, signing or hub; may be given several times. Unset: url.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replace secrets of a trigger and print the new ones, only this time. The old ones stop working."""
    with connect() as client:
        issued = client.rotate_trigger(trigger, [each.value for each in secret or [_Secret.URL]])
    _show_issued(issued, as_json)


@triggers_app.command("delete")
def delete_trigger(trigger: TriggerArgument) -> None:
    """Delete a trigger and its history. Its jobs stay."""
    with connect() as client:
        client.delete_trigger(trigger)
    say(f"{trigger} is deleted.")


@triggers_app.command("fire")
def fire_trigger(
    trigger: TriggerArgument,
    payload: PayloadOption = None,
    event_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of the event. An id that was seen before makes no second job.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the job that it would submit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fire a trigger by hand, with a payload as its sender would send it."""
    sent = {} if payload is None else _read_object(payload, "--payload")
    with connect() as client:
        if dry_run:
            preview = client.preview_trigger(trigger, sent)
            print_json(preview if as_json else preview.job)
            return
        fired = client.fire_trigger(trigger, sent, event_id=event_id)
    if as_json:
        print_json(fired)
        return
    explain(f"{trigger} {'made' if fired.outcome == 'accepted' else 'had made'}:")
    say(fired.job_id or fired.outcome)


@triggers_app.command("firings")
def list_firings(
    trigger: TriggerArgument,
    limit: Annotated[int, typer.Option(min=1, help="Largest number to list.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show the firings of a trigger and their outcomes, newest first."""
    with connect() as client:
        firings = list(islice(client.firings(trigger), limit))
    if as_json:
        print_json(firings)
        return
    print_table(
        ("time", "source", "outcome", "event", "job", "why"),
        [
            (moment(each.created_at), each.source, each.outcome, each.event_id or "–", each.job_id or "–", _why(each))
            for each in firings
        ],
    )


def _show_issued(issued: IssuedTrigger, as_json: bool) -> None:
    """Print only the new secrets on stdout, one per line, for a script to read, and their descriptions on stderr."""
    if as_json:
        print_json(issued)
        return
    new = [(what, value) for what, value in _secrets(issued) if value is not None]
    explain(f"{issued.id}, {issued.name}, is {_state(issued)}{'; shown only this time:' if new else ''}")
    for what, value in new:
        explain(f"{what}:")
        say(value)


def _secrets(issued: IssuedTrigger) -> list[tuple[str, str | None]]:
    return [
        ("URL", issued.url),
        ("signing secret (Standard Webhooks)", issued.signing_secret),
        ("hub secret (for the webhook's settings on the hub)", issued.hub_secret),
    ]


def _state(trigger: Trigger) -> str:
    return "enabled" if trigger.enabled else "disabled"


def _sources(trigger: Trigger) -> str:
    sources = ["signed payloads at its URL" if trigger.signing else "payloads at its URL"]
    if trigger.hub is not None:
        sources.append(f"commits of {trigger.hub.repository}")
    if trigger.schedule is not None:
        sources.append(f"{trigger.schedule.cron} {trigger.schedule.timezone}")
    return ", ".join(sources)


def _when(trigger: Trigger) -> str:
    return "–" if trigger.next_fire_at is None else moment(trigger.next_fire_at)


def _declared(trigger: Trigger) -> dict[str, Any]:
    return {
        name: {member: value for member, value in each.items() if value is not None}
        for name, each in trigger.placeholders.items()
    }


def _why(firing: Firing) -> str:
    return str(firing.error["message"]) if firing.error is not None else firing.note or ""


def _read_object(file: Path, option: str) -> dict[str, Any]:
    """Read a JSON object from a file. Raises typer.BadParameter for anything else."""
    try:
        value = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{option} {file}: {error}") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{option} {file}: write a JSON object")
    return value
