"""`secateur retention`: which artifacts the team keeps. Needs an admin key."""

from typing import Annotated

import typer

from secateur.cli.output import JsonOption, connect, moment, print_json, print_pairs, print_table, say
from secateur.formatting import size
from secateur_wire.retention import ArtifactVerdict, Figure, Group, KeepBest, KeepTagged, Retention, RetentionPolicy

DaysOption = Annotated[
    int | None, typer.Option("--keep-days", min=1, help="Artifacts younger than this stay, whatever else is said.")
]
LastOption = Annotated[int | None, typer.Option("--keep-last", min=1, help="So many that ended last stay.")]
BestOption = Annotated[int | None, typer.Option("--keep-best", min=1, help="So many of the best stay.")]
ByOption = Annotated[Figure, typer.Option("--best-by", help="What the best are smallest in.")]
OfOption = Annotated[Group, typer.Option("--best-of", help="The best of each model, each method, or the whole team.")]
TaggedOption = Annotated[
    list[str] | None,
    typer.Option("--keep-tagged", metavar="KEY=VALUE", help="Those with this label stay. Repeatable: with all."),
]

retention_app = typer.Typer(help="Which artifacts the team keeps.", no_args_is_help=True, rich_markup_mode=None)


@retention_app.command("show")
def show_retention(as_json: JsonOption = False) -> None:
    """Show what is kept."""
    with connect() as client:
        retention = client.retention()
    _show(retention, as_json)


@retention_app.command("set")
def set_retention(
    keep_days: DaysOption = None,
    keep_last: LastOption = None,
    keep_best: BestOption = None,
    best_by: ByOption = "perplexity_ratio",
    best_of: OfOption = "model",
    keep_tagged: TaggedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what is kept; all else goes, at most 1,000 artifacts a minute. Try it with `retention preview` first."""
    policy = _policy(keep_days, keep_last, keep_best, best_by, best_of, keep_tagged)
    if policy is None:
        raise typer.BadParameter("say with --keep-days how old an artifact may get")
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
def preview_retention(
    keep_days: DaysOption = None,
    keep_last: LastOption = None,
    keep_best: BestOption = None,
    best_by: ByOption = "perplexity_ratio",
    best_of: OfOption = "model",
    keep_tagged: TaggedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would go now by these options, or without any by the team's policy, and why the rest would stay."""
    policy = _policy(keep_days, keep_last, keep_best, best_by, best_of, keep_tagged)
    with connect() as client:
        policy = policy or client.retention().policy
        if policy is None:
            raise typer.BadParameter("the team keeps everything: say with --keep-days what to try")
        tried = client.preview_retention(policy)
    if as_json:
        print_json(tried)
        return
    say(f"{tried.goes} artifacts would go, {tried.stays} stay; {size(tried.bytes_freed)} freed.")
    if tried.artifacts:
        print_table(
            ("job", "model", "method", "ended", "size", "what becomes of it"),
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


def _policy(
    keep_days: int | None,
    keep_last: int | None,
    keep_best: int | None,
    best_by: Figure,
    best_of: Group,
    keep_tagged: list[str] | None,
) -> RetentionPolicy | None:
    """Return the policy that the options say; None where they say nothing."""
    labels = {}
    for text in keep_tagged or []:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"--keep-tagged {text!r}: write KEY=VALUE")
        labels[key] = value
    if keep_days is None:
        if keep_last is not None or keep_best is not None or labels:
            raise typer.BadParameter("say with --keep-days how old an artifact may get")
        return None
    return RetentionPolicy(
        keep_days=keep_days,
        keep_last=keep_last,
        keep_best=None if keep_best is None else KeepBest(count=keep_best, by=best_by, group=best_of),
        keep_tagged=KeepTagged(metadata=labels) if labels else None,
    )


def _show(retention: Retention, as_json: bool) -> None:
    if as_json:
        print_json(retention)
        return
    policy = retention.policy
    if policy is None:
        say("Everything is kept.")
        return
    pairs: list[tuple[str, str | None]] = [("kept", f"what ended in the last {policy.keep_days} days")]
    if policy.keep_last is not None:
        pairs.append(("and", f"the last {policy.keep_last}"))
    if policy.keep_best is not None:
        best = policy.keep_best
        pairs.append(("and", f"the best {best.count} of each {best.group} by {best.by}"))
    if policy.keep_tagged is not None:
        labels = ", ".join(f"{key}={value}" for key, value in policy.keep_tagged.metadata.items())
        pairs.append(("and", f"those with {labels}"))
    pairs.append(("since", None if retention.updated_at is None else moment(retention.updated_at)))
    print_pairs(pairs)
