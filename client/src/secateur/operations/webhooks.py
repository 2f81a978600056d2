"""Operations on webhooks: addresses that are notified of the events of the team's jobs."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from pydantic import JsonValue

from secateur.operations.calls import Calls, given
from secateur.transport import segment
from secateur_wire.webhooks import CreatedWebhook, Delivery, DeliveryDetail, DeliveryState, Replayed, Webhook


class WebhookOperations(Calls):
    """Operations on endpoints and their deliveries. Changes need an admin key; pings and replays a member's."""

    def webhooks(self) -> Iterator[Webhook]:
        """Iterate over the team's webhooks, newest first."""
        return self._list("webhooks", Webhook)

    def webhook(self, webhook_id: str) -> Webhook:
        """Return one webhook, without its secret."""
        return self._transport.call("GET", _path(webhook_id), Webhook)

    def create_webhook(
        self,
        url: str,
        *,
        description: str | None = None,
        types: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> CreatedWebhook:
        """Create a webhook that sends events of these types (none: all) about jobs with this metadata to `url`.

        Only this answer has the secret that signs its deliveries.
        """
        body = given(url=url, description=description, types=list(types), metadata=dict(metadata or {}))
        return self._create("webhooks", CreatedWebhook, body, slow=True)

    def change_webhook(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        description: str | None = None,
        types: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Change the given fields. A webhook that is enabled again gets its waiting deliveries."""
        body: dict[str, JsonValue] = given(
            url=url,
            description=description,
            types=None if types is None else list(types),
            metadata=None if metadata is None else dict(metadata),
            enabled=enabled,
        )
        return self._transport.call("PATCH", _path(webhook_id), Webhook, body=body, slow=True)

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook with its deliveries."""
        self._transport.delete(_path(webhook_id))

    def rotate_webhook_secret(self, webhook_id: str, *, grace_seconds: float | None = None) -> CreatedWebhook:
        """Create a new secret; the old one also signs for `grace_seconds` (unset: a day)."""
        return self._create(f"{_path(webhook_id)}/rotate", CreatedWebhook, given(grace_seconds=grace_seconds))

    def ping_webhook(self, webhook_id: str) -> Delivery:
        """Send an event `webhook.ping`."""
        return self._create(f"{_path(webhook_id)}/ping", Delivery)

    def deliveries(
        self, webhook_id: str, *, state: DeliveryState | None = None, type: str | None = None
    ) -> Iterator[Delivery]:
        """Iterate over a webhook's deliveries, sent and waiting, newest first."""
        filters: dict[str, str] = {name: value for name, value in (("state", state), ("type", type)) if value}
        return self._list(f"{_path(webhook_id)}/deliveries", Delivery, filters)

    def delivery(self, webhook_id: str, delivery_id: str) -> DeliveryDetail:
        """Return one delivery: its payload, and the result of each attempt."""
        return self._transport.call("GET", _path(webhook_id, delivery_id), DeliveryDetail)

    def replay_delivery(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a delivery again, with the same webhook-id; a waiting delivery is sent now."""
        return self._transport.call("POST", f"{_path(webhook_id, delivery_id)}/replay", Delivery)

    def replay_failed(self, webhook_id: str, since: datetime) -> int:
        """Send again every given-up delivery of an event after `since`; return their number."""
        body: dict[str, JsonValue] = {"since": since.isoformat()}
        replayed = self._transport.call("POST", f"{_path(webhook_id)}/replay", Replayed, body=body)
        return replayed.deliveries


def _path(webhook_id: str, delivery_id: str | None = None) -> str:
    path = f"webhooks/{segment(webhook_id)}"
    return path if delivery_id is None else f"{path}/deliveries/{segment(delivery_id)}"
