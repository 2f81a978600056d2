"""`secateur retention`: the policy for the artifacts that the team keeps. Needs an admin key."""

from dataclasses import dataclass
from typing import Annotated

import typer

from secateur.cli.options import named_values, with_options
from secateur.cli.output import JsonOption, connect, moment, print_json, print_pairs, print_table, say
from secateur_wire.retention import ArtifactVerdict, KeepTagged, Retention, RetentionPolicy
from secateur_wire.sizes import size


@dataclass(frozen=True)
class PolicyOptions:
    """Options of a policy."""

    keep_days: Annotated[int | None, typer.Option(min=1, help="Days for which every artifact is kept.")] = None
    keep_tagged: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Keep artifacts of jobs with this label. Repeatable: jobs must have all of them."
        ),
    ] = None

    def policy(self) -> RetentionPolicy | None:
        """Return the policy of the options; None without options."""
        labels = named_values(self.keep_tagged or [], "--keep-tagged")
        if self.keep_days is None:
            if labels:
                raise typer.BadParameter("give --keep-days, the days to keep every artifact")
            return None
        tagged = KeepTagged(metadata=labels) if labels else None
        return RetentionPolicy(keep_days=self.keep_days, keep_tagged=tagged)


retention_app = typer.Typer(help="Which artifacts the team keeps.", no_args_is_help=True, rich_markup_mode=None)


@retention_app.command("show")
def show_retention(as_json: JsonOption = False) -> None:
    """Show which artifacts are kept."""
    with connect() as client:
        retention = client.retention()
    _show(retention, as_json)


@retention_app.command("set")
@with_options
def set_retention(options: PolicyOptions, as_json: JsonOption = False) -> None:
    """Set which artifacts are kept. The others are removed, at most 1,000 a minute. Try `retention preview` first."""
    policy = options.policy()
    if policy is None:
        raise typer.BadParameter("give --keep-days, the days to keep every artifact")
    with connect() as client:
        retention = client.set_retention(policy)
    _show(retention, as_json)


@retention_app.command("clear")
def clear_retention(as_json: JsonOption = False) -> None:
    """Keep everything from now on."""
    with connect() as client:
        retention = client.clear_retention()
    _show(retention, as_json)


@retention_app.command("preview")
@with_options
def preview_retention(options: PolicyOptions, as_json: JsonOption = False) -> None:
    """Show which artifacts these options, or without any the team's policy, would remove now, and why others stay."""
    policy = options.policy()
    with connect() as client:
        policy = policy or client.retention().policy
        if policy is None:
            raise typer.BadParameter("the team has no policy: give --keep-days to try one")
        tried = client.preview_retention(policy)
    if as_json:
        print_json(tried)
        return
    say(f"{tried.goes} artifacts would go, {tried.stays} stay; {size(tried.bytes_freed)} freed.")
    if tried.artifacts:
        print_table(
            ("job", "model", "method", "ended", "size", "outcome"),
            [
                (each.job_id, each.model, each.method, moment(each.finished_at), size(each.bytes), _decision(each))
                for each in tried.artifacts
            ],
            numbers=(4,),
        )
    if tried.has_more:
        say(f"The first {len(tried.artifacts)} of {tried.goes + tried.stays} are shown.")


def _decision(each: ArtifactVerdict) -> str:
    if each.goes:
        return "goes"
    used = f" by {each.used_by}" if each.used_by else ""
    return f"stays: {', '.join(each.kept_because).replace('_', ' ')}{used}"


def _show(retention: Retention, as_json: bool) -> None:
    if as_json:
        print_json(retention)
        return
    policy = retention.policy
    if policy is None:
        say(f"Everything is kept{': ' + retention.suspended if retention.suspended else ''}.")
        return
    pairs: list[tuple[str, str | None]] = [("kept", f"what ended in the last {policy.keep_days} days")]
    if policy.keep_tagged is not None:
        labels = ", ".join(f"{key}={value}" for key, value in policy.keep_tagged.metadata.items())
        pairs.append(("and", f"those with {labels}"))
    pairs.append(("since", None if retention.updated_at is None else moment(retention.updated_at)))
    print_pairs(pairs)
