"""`secateur webhooks`: addresses that are notified of the events of the team's jobs."""

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import typer

from secateur.cli.identifiers import complete
from secateur.cli.options import named_values
from secateur.cli.output import JsonOption, connect, explain, moment, print_json, print_pairs, print_table, say
from secateur_wire.webhooks import CreatedWebhook, Delivery, DeliveryState, Webhook

WebhookArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=complete("webhook"),
        help="The webhook, such as webhook_01ARZ3NDEKTSV4RRFFQ69G5FAV, or the beginning of its id.",
    ),
]
DeliveryArgument = Annotated[
    str,
    typer.Argument(
        metavar="DELIVERY", callback=complete("delivery"), help="The delivery: its webhook-id, or the beginning of it."
    ),
]
UrlArgument = Annotated[str, typer.Argument(metavar="URL", help="Where to send: https://example.com/hook.")]
TypeOption = Annotated[list[str] | None, typer.Option("--type", help="Only events of this type; may be repeated.")]
MetadataOption = Annotated[
    list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Only for jobs with this metadata.")
]
DescriptionOption = Annotated[str | None, typer.Option(help="What it is for.")]

webhooks_app = typer.Typer(
    help="Addresses that receive the events of the team's jobs.", no_args_is_help=True, rich_markup_mode=None
)


@webhooks_app.command("list")
def list_webhooks(as_json: JsonOption = False) -> None:
    """List all webhooks, newest first."""
    with connect() as client:
        known = list(client.webhooks())
    if as_json:
        print_json(known)
    elif not known:
        say("There are no webhooks: make one with `secateur webhooks create URL`.")
    else:
        print_table(
            ("webhook", "url", "events", "state", "waiting", "failed"),
            [(each.id, each.url, _events(each), _state(each), str(each.pending), str(each.failed)) for each in known],
            numbers=(4, 5),
        )


@webhooks_app.command("show")
def show_webhook(webhook_id: WebhookArgument, as_json: JsonOption = False) -> None:
    """Show one webhook."""
    with connect() as client:
        _print(client.webhook(webhook_id), as_json)


@webhooks_app.command("create")
def create_webhook(
    url: UrlArgument,
    types: TypeOption = None,
    metadata: MetadataOption = None,
    description: DescriptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a webhook and print its secret, only this time. Like all changes it needs an admin key."""
    with connect() as client:
        webhook = client.create_webhook(
            url, description=description, types=types or [], metadata=named_values(metadata or [], "--metadata")
        )
    _print_created(webhook, as_json)


@webhooks_app.command("update")
def update_webhook(
    webhook_id: WebhookArgument,
    url: Annotated[str | None, typer.Option(help="Where to send.")] = None,
    types: TypeOption = None,
    all_types: Annotated[bool, typer.Option("--all-types", help="Events of all types.")] = False,
    metadata: MetadataOption = None,
    description: DescriptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the given fields of a webhook."""
    with connect() as client:
        changed = client.change_webhook(
            webhook_id,
            url=url,
            description=description,
            types=[] if all_types else types or None,
            metadata=named_values(metadata, "--metadata") if metadata else None,
        )
    _print(changed, as_json)


@webhooks_app.command("enable")
def enable_webhook(webhook_id: WebhookArgument, as_json: JsonOption = False) -> None:
    """Enable a webhook. Waiting events are sent."""
    with connect() as client:
        _print(client.change_webhook(webhook_id, enabled=True), as_json)


@webhooks_app.command("disable")
def disable_webhook(webhook_id: WebhookArgument, as_json: JsonOption = False) -> None:
    """Disable a webhook. Waiting events are kept."""
    with connect() as client:
        _print(client.change_webhook(webhook_id, enabled=False), as_json)


@webhooks_app.command("delete")
def delete_webhook(webhook_id: WebhookArgument) -> None:
    """Delete a webhook and its deliveries."""
    with connect() as client:
        client.delete_webhook(webhook_id)
    say(f"{webhook_id} is removed.")


@webhooks_app.command("rotate")
def rotate_secret(
    webhook_id: WebhookArgument,
    grace_hours: Annotated[
        float | None, typer.Option(min=0, help="Hours for which the old secret still signs too. Unset: 24.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a new secret and print it. It is shown only this time."""
    with connect() as client:
        webhook = client.rotate_webhook_secret(
            webhook_id, grace_seconds=None if grace_hours is None else grace_hours * 3600
        )
    _print_created(webhook, as_json)


@webhooks_app.command("ping")
def ping_webhook(webhook_id: WebhookArgument, as_json: JsonOption = False) -> None:
    """Send a test event, `webhook.ping`."""
    with connect() as client:
        _print_delivery(client.ping_webhook(webhook_id), as_json)


@webhooks_app.command("deliveries")
def list_deliveries(
    webhook_id: WebhookArgument,
    state: Annotated[DeliveryState | None, typer.Option(help="Only deliveries in this state.")] = None,
    type: Annotated[str | None, typer.Option(help="Only events of this type.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number to list.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the deliveries to a webhook, sent and waiting, newest first."""
    with connect() as client:
        fetched = list(islice(client.deliveries(webhook_id, state=state, type=type), limit + 1))
    shown = fetched[:limit]
    if as_json:
        print_json(shown)
    elif not shown:
        say("There are no such deliveries.")
    else:
        print_table(
            ("delivery", "when", "event", "of", "state", "attempts", "last"),
            [
                (
                    each.id,
                    moment(each.created_at),
                    each.type,
                    each.subject,
                    each.state,
                    str(each.attempts),
                    each.last_error or ("" if each.last_status is None else str(each.last_status)),
                )
                for each in shown
            ],
            numbers=(5,),
        )
    if len(fetched) > limit:
        explain(f"there are more than {limit}; show them with --limit")


@webhooks_app.command("delivery")
def show_delivery(webhook_id: WebhookArgument, delivery_id: DeliveryArgument, as_json: JsonOption = False) -> None:
    """Show one delivery: what is sent, and how each attempt went."""
    with connect() as client:
        delivery = client.delivery(webhook_id, delivery_id)
    if as_json:
        print_json(delivery)
        return
    _print_delivery(delivery, as_json)
    print_table(
        ("attempt", "when", "ms", "answer", "body"),
        [
            (
                str(each.attempt),
                moment(each.started_at),
                str(each.milliseconds),
                each.error or str(each.status),
                (each.response or "")[:200],
            )
            for each in delivery.log
        ],
        numbers=(2,),
    )
    print_json(delivery.payload)


@webhooks_app.command("replay")
def replay(
    webhook_id: WebhookArgument,
    delivery_id: Annotated[
        str | None, typer.Argument(metavar="[DELIVERY]", callback=complete("delivery"), help="This one alone.")
    ] = None,
    failed_since: Annotated[
        datetime | None, typer.Option(help="All failed deliveries of events since then (UTC).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send one delivery again, or all that failed since a time."""
    if (delivery_id is None) == (failed_since is None):
        raise typer.BadParameter("name a delivery, or a time with --failed-since", param_hint="DELIVERY")
    with connect() as client:
        if delivery_id is not None:
            _print_delivery(client.replay_delivery(webhook_id, delivery_id), as_json)
            return
        assert failed_since is not None
        count = client.replay_failed(webhook_id, failed_since.replace(tzinfo=failed_since.tzinfo or UTC))
    if as_json:
        print_json({"deliveries": count})
    else:
        say(f"{count} {'delivery' if count == 1 else 'deliveries'} will be sent again.")


def _events(webhook: Webhook) -> str:
    wanted = [*(webhook.types or ["all"]), *(f"{key}={value}" for key, value in webhook.metadata.items())]
    return ", ".join(wanted)


def _state(webhook: Webhook) -> str:
    if not webhook.enabled:
        return f"disabled: {webhook.disabled_reason}"
    return "enabled" if webhook.failing_since is None else f"failing since {moment(webhook.failing_since)}"


def _print(webhook: Webhook, as_json: bool) -> None:
    if as_json:
        print_json(webhook)
        return
    print_pairs(
        [
            ("webhook", webhook.id),
            ("url", webhook.url),
            ("description", webhook.description or None),
            ("events", _events(webhook)),
            ("state", _state(webhook)),
            ("waiting", str(webhook.pending)),
            ("failed", str(webhook.failed)),
            ("created", moment(webhook.created_at)),
        ]
    )


def _print_created(webhook: CreatedWebhook, as_json: bool) -> None:
    """Print only the secret on stdout, for a script to read, and the webhook on stderr."""
    if as_json:
        print_json(webhook)
        return
    explain(f"{webhook.id}, {webhook.url}; its secret is shown only this time")
    say(webhook.secret)


def _print_delivery(delivery: Delivery, as_json: bool) -> None:
    if as_json:
        print_json(delivery)
        return
    print_pairs(
        [
            ("delivery", delivery.id),
            ("event", f"{delivery.type} of {delivery.subject}"),
            ("state", delivery.state),
            ("attempts", str(delivery.attempts)),
            ("last", delivery.last_error),
            ("next attempt", moment(delivery.next_attempt_at) if delivery.next_attempt_at else None),
        ]
    )
