"""`secateur workload-rules`: pipelines that get keys for their identity tokens. Needs an admin key."""

from typing import Annotated

import typer

from secateur.cli.options import named_values
from secateur.cli.output import JsonOption, connect, explain, moment, print_json, print_table, say
from secateur_wire.teams import Role

workload_rules_app = typer.Typer(
    help="Rules for pipelines that store no key.", no_args_is_help=True, rich_markup_mode=None
)


@workload_rules_app.command("list")
def list_workload_rules(as_json: JsonOption = False) -> None:
    """List all rules, newest first, with the audience that pipelines ask their token for."""
    with connect() as client:
        known = list(client.workload_rules())
    if as_json:
        print_json(known)
    elif not known:
        say("There are no rules: make one with `secateur workload-rules create`.")
    else:
        print_table(
            ("rule", "name", "role", "issuer", "claims", "created"),
            [
                (each.id, each.name, each.role, each.issuer, _claims(each.claims), moment(each.created_at))
                for each in known
            ],
        )
        say(f"Audience of the tokens: {known[0].audience}")


@workload_rules_app.command("create")
def create_workload_rule(
    issuer: Annotated[
        str, typer.Option(help="Who signs the tokens, such as https://token.actions.githubusercontent.com.")
    ],
    claim: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="Claim that a token must have: repository_id and repository_owner_id (GitHub), or project_id and "
            "namespace_id (GitLab), and for example ref. Repeatable.",
        ),
    ],
    name: Annotated[str, typer.Option(help="What the rule is for.")] = "pipeline",
    role: Annotated[Role, typer.Option(help="What the pipeline may do: look (viewer) or submit (member).")] = "member",
    as_json: JsonOption = False,
) -> None:
    """Create a rule, and print the audience that the pipeline asks its token for."""
    with connect() as client:
        rule = client.create_workload_rule(name, issuer=issuer, claims=named_values(claim, "--claim"), role=role)
    if as_json:
        print_json(rule)
        return
    explain(f"{rule.id}, {rule.name}, {rule.role}; pipelines ask for a token with this audience")
    say(rule.audience)


@workload_rules_app.command("delete")
def delete_workload_rule(
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="The rule, such as rule_01ARZ3NDEKTSV4RRFFQ69G5FAV.")],
) -> None:
    """Delete a rule, and end the keys that pipelines got by it."""
    with connect() as client:
        client.delete_workload_rule(rule_id)
    say(f"{rule_id} is deleted, and its keys are revoked.")


def _claims(claims: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in claims.items())
