"""Commands `secateur teams` of the operator, for teams and their quotas, on the server itself.

A team's own admins create keys; only the operator sets quotas.
"""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from secateur.cli.output import JsonOption, explain, moment, print_json, print_table
from worker.cli.errors import local_instance

if TYPE_CHECKING:
    from secateur_wire.teams import Team

_HOUR = 3600


def _number(text: str) -> float | None:
    """Parse a limit as typed; `none` removes it."""
    if text.lower() == "none":
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise typer.BadParameter(f"{text!r} is neither a number nor none")
    return number


def _limit(help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar="NUMBER|none", help=help)
    return option


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The team.")]
RunningOption = Annotated[str | None, _limit("Largest number of jobs that run at once.")]
QueuedOption = Annotated[str | None, _limit("Largest number of jobs that wait at once.")]
HoursOption = Annotated[str | None, _limit("Largest number of hours on workers in a calendar month (UTC).")]
BytesOption = Annotated[str | None, _limit("Largest number of bytes of artifacts and uploads.")]
WeightOption = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="Weight of the team's turns in a queue that other teams wait in too. The usual weight is 1.",
    ),
]

teams_app = typer.Typer(help="Teams of this server, and their quotas.", no_args_is_help=True, rich_markup_mode=None)


@teams_app.command("list")
def _list(as_json: JsonOption = False) -> None:
    """List all teams: what they use, and their quotas."""
    from core.database import transaction
    from core.service.jobs.quotas import list_teams

    with local_instance() as instance, transaction(instance.sessions) as session:
        teams = list_teams(session)
    _show(teams, as_json)


@teams_app.command("create")
def _create(
    name: NameArgument,
    max_running: RunningOption = None,
    max_queued: QueuedOption = None,
    max_device_hours: HoursOption = None,
    max_stored_bytes: BytesOption = None,
    weight: WeightOption = None,
) -> None:
    """Create a team and show its first admin key. It is shown only this time."""
    limits = _limits(max_running, max_queued, max_device_hours, max_stored_bytes, weight)
    from core.database import transaction
    from core.service.teams.administration import create_team_with_key
    from core.service.teams.server_secret import server_secret

    with local_instance() as instance, transaction(instance.sessions) as session:
        key = create_team_with_key(session, name, limits, secret=server_secret(instance.settings))
    explain(f"team {name!r} created; its admin key, shown only this time:")
    typer.echo(key.key)


@teams_app.command("refused")
def _refused(
    limit: Annotated[int, typer.Option(min=1, help="Largest number to list.")] = 50, as_json: JsonOption = False
) -> None:
    """List refused keys that belong to no team, newest first. A team's own are in its audit trail."""
    from core.database import transaction
    from core.service.teams.audit import list_refusals

    with local_instance() as instance, transaction(instance.sessions) as session:
        refusals = list_refusals(session, limit=limit)
    if as_json:
        print_json(refusals)
        return
    print_table(
        ("when", "from", "why", "times"),
        [
            (moment(each.created_at), each.address or "many", str(each.details["reason"]), str(each.details["count"]))
            for each in refusals
        ],
        numbers=(3,),
    )


@teams_app.command("set")
def _set(
    name: NameArgument,
    max_running: RunningOption = None,
    max_queued: QueuedOption = None,
    max_device_hours: HoursOption = None,
    max_stored_bytes: BytesOption = None,
    weight: WeightOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set quotas of a team, or remove them with `none`. Others stay as they are."""
    limits = _limits(max_running, max_queued, max_device_hours, max_stored_bytes, weight)
    if not limits:
        raise typer.BadParameter("name at least one quota to set, such as --max-running 4")
    from core.database import transaction
    from core.service.jobs.quotas import get_team
    from core.service.teams.administration import set_limits

    with local_instance() as instance, transaction(instance.sessions) as session:
        team = get_team(session, set_limits(session, name, limits))
    _show([team], as_json)


def _limits(
    max_running: str | None,
    max_queued: str | None,
    max_device_hours: str | None,
    max_stored_bytes: str | None,
    weight: float | None,
) -> dict[str, float | None]:
    """Return the limits that were given."""
    limits: dict[str, float | None] = {}
    counts = {"max_running": max_running, "max_queued": max_queued, "max_stored_bytes": max_stored_bytes}
    for name, typed in counts.items():
        if typed is not None:
            limits[name] = _integer(name, _number(typed))
    if max_device_hours is not None:
        hours = _number(max_device_hours)
        limits["max_device_seconds"] = None if hours is None else hours * _HOUR
    if weight is not None:
        limits["weight"] = weight
    return limits


def _integer(name: str, value: float | None) -> int | None:
    if value is not None and value != int(value):
        raise typer.BadParameter(f"{name}: {value:g} is not a whole number")
    return None if value is None else int(value)


def _show(teams: "list[Team]", as_json: bool) -> None:
    if as_json:
        print_json(teams)
        return
    headers = ("team", "weight", "running", "queued", "device hours", "stored bytes")
    print_table(
        headers,
        [
            (
                team.name,
                f"{team.weight:g}",
                _of(team.usage.running, team.quotas.max_running),
                _of(team.usage.queued, team.quotas.max_queued),
                _of(team.usage.device_seconds / _HOUR, team.quotas.max_device_seconds, _HOUR),
                _of(team.usage.stored_bytes, team.quotas.max_stored_bytes),
            )
            for team in teams
        ],
        numbers=range(1, len(headers)),
    )


def _of(used: float, most: float | None, unit: float = 1) -> str:
    shown = f"{used:.1f}" if unit != 1 else f"{used:.0f}"
    return shown if most is None else f"{shown} of {most / unit:g}" if unit != 1 else f"{shown} of {most:.0f}"
