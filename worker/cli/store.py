"""Commands `secateur store` of the operator: the store's owner, and artifacts of jobs unknown to the database."""

from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue

from secateur.cli.output import JsonOption, explain, moment, print_json, print_table
from secateur_wire.sizes import size
from worker.cli.errors import USAGE, local_instance

if TYPE_CHECKING:
    from core.service.retention.unknown import UnknownArtifact

store_app = typer.Typer(
    help="The store of this installation: who owns it, and what is left in it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@store_app.command("owner")
def _owner(as_json: JsonOption = False) -> None:
    """Show which installation owns the store, and which one this is."""
    from core.database import transaction
    from core.service.teams.installation import installation_id
    from core.storage import find_owner, open_store

    with local_instance() as instance:
        with transaction(instance.sessions) as session:
            own = installation_id(session)
        owner = find_owner(open_store(instance.settings))
    if as_json:
        print_json({"installation": own, "store_owner": owner})
        return
    print_table(("this installation", "owner of the store"), [(own, owner or "nobody yet")])


@store_app.command("take-over")
def _take_over(
    yes: Annotated[bool, typer.Option("--yes", help="Confirm that the other installation is gone for good.")] = False,
) -> None:
    """Make this installation the owner of the store. Models that its database does not name are then removed."""
    from core.database import transaction
    from core.service.teams.installation import installation_id
    from core.storage import open_store, take_over

    if not yes:
        explain("give --yes if the other installation is gone: the models that it has in the store will be removed")
        raise typer.Exit(USAGE)
    with local_instance() as instance:
        with transaction(instance.sessions) as session:
            own = installation_id(session)
        before = take_over(open_store(instance.settings), own)
    explain(f"the store was {before or 'nobody'}'s, and is {own}'s now")


@store_app.command("unknown")
def _unknown(
    remove: Annotated[bool, typer.Option("--remove", help="Remove them for good.")] = False,
    older_than_days: Annotated[
        float | None,
        typer.Option(min=0, help="With --remove: only artifacts last written more than this many days ago."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number to list.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """List artifacts of jobs that the database does not know, such as jobs newer than a restored dump."""
    from core.service.retention.unknown import remove_unknown, unknown_artifacts
    from core.service.teams.installation import open_own_store

    if remove != (older_than_days is not None):
        raise typer.BadParameter("--remove and --older-than-days go together")
    with local_instance() as instance:
        store = open_own_store(instance.settings, instance.sessions)
        if older_than_days is not None:
            age = timedelta(days=older_than_days)
            artifacts = list(remove_unknown(instance.sessions, store, older_than=age))
        else:
            artifacts = list(islice(unknown_artifacts(instance.sessions, store), limit))
    _show(artifacts, as_json)
    if older_than_days is not None:
        explain(f"{len(artifacts)} removed, {size(sum(each.bytes for each in artifacts))}")
    elif len(artifacts) == limit:
        explain(f"the first {limit}; there may be more: --limit")


def _show(artifacts: "list[UnknownArtifact]", as_json: bool) -> None:
    if as_json:
        documents: list[JsonValue] = [
            {"job": each.job_id, "bytes": each.bytes, "touched": each.touched.isoformat()} for each in artifacts
        ]
        print_json(documents)
        return
    rows = [(each.job_id, size(each.bytes), moment(each.touched)) for each in artifacts]
    print_table(("job", "bytes", "last written"), rows, numbers=(1,))
